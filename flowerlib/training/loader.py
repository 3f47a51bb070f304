"""Batches of photos, made by threads ahead of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from flowerlib.data.photos import PhotoSet
from flowerlib.data.threads import in_threads
from flowerlib.experiment import Experiment
from flowerlib.training.augment import Augmentation, augment, centre_crop, draw_augmentation

cv2.setNumThreads(1)  # our own threads share the cores

# part of the key of every random draw, so that the order of the photos never shares a stream with a photo
ORDER_STREAM = 1


@dataclass(frozen=True)
class Loader:
    """Makes the views of the photos that training and the two evaluations see.

    Each method yields batches in order: images as uint8 (n, size, size, 3), labels as int64 (n,). A photo's
    view depends on (seed, epoch, index) alone, so that the number of threads changes nothing but the speed.

    Attributes:
        experiment: the settings.
        photos: what to make views of.
        augment: applies a drawn augmentation; the bench measures `augment_reference` here.
    """

    experiment: Experiment
    photos: PhotoSet
    augment: Callable[[np.ndarray, Augmentation, int], np.ndarray] = field(default=augment, kw_only=True)

    def training(self, indices: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Augmented views of every photo, in an order of this epoch's own."""
        order = np.random.default_rng((self.experiment.seed, epoch, 0, ORDER_STREAM)).permutation(indices)
        return self.augmented(order, epoch)

    def augmented(self, indices: np.ndarray, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Augmented views in the order given: the paper's validation."""
        return self._batches(indices, lambda index: self._augmented_view(index, epoch))

    def views(self, indices: np.ndarray, epoch: int) -> np.ndarray:
        """Augmented views to look at: uint8 (n, size, size, 3)."""
        return np.stack([self._augmented_view(int(index), epoch) for index in indices])

    def clean(self, indices: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Centre crops in the order given."""
        return self._batches(indices, lambda index: centre_crop(self.photos.read(index), self.experiment.image_size))

    def _augmented_view(self, index: int, epoch: int) -> np.ndarray:
        pixels = self.photos.read(index)
        height, width, _ = pixels.shape
        augmentation = draw_augmentation(self.experiment, epoch, index, width, height)
        return self.augment(pixels, augmentation, self.experiment.image_size)

    def _batches(self, indices: np.ndarray, view: Callable[[int], np.ndarray]):
        size = self.experiment.batch_size
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]

        def make(batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            images = np.stack([view(int(index)) for index in batch])
            return torch.from_numpy(images), torch.from_numpy(self.photos.labels[batch])

        return in_threads(make, batches)
