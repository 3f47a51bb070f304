"""Batches of photos, loaded by threads ahead of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from flowerlib.data.crop import centre_crop
from flowerlib.data.photos import PhotoSet
from flowerlib.data.threads import in_threads
from flowerlib.experiment import Experiment
from flowerlib.training.augment import Augmentation, augment, draw_augmentation

cv2.setNumThreads(1)  # the cores are shared by our own threads

CPU = torch.device("cpu")
Batch = tuple[torch.Tensor, torch.Tensor]  # images, uint8 (n, size, size, 3), and labels, int64 (n,)
# part of the key of every draw of an order, so that it never shares a random stream with a photo's augmentation
ORDER_STREAM = 1


@dataclass(frozen=True)
class Loader:
    """Computes the views of the photos that training and the two evaluations see.

    `training`, `augmented` and `clean` yield batches in order, on ``device``: images as uint8 (n, size, size, 3),
    labels as int64 (n,). A photo's view depends on (seed, epoch, index) alone, so that the number of threads affects
    nothing but the speed.

    Attributes:
        experiment: the settings.
        photos: the data set.
        device: the network's.
        augment: applies a drawn augmentation; the bench measures `augment_reference` here.
    """

    experiment: Experiment
    photos: PhotoSet
    device: torch.device = CPU
    augment: Callable[[np.ndarray, Augmentation, int], np.ndarray] = field(default=augment, kw_only=True)

    def training(self, indices: np.ndarray, epoch: int) -> Iterator[Batch]:
        """Augmented views of every photo, in an order drawn for this epoch; a last batch of one joins the one before.

        Batch norm can't be trained on one photo where a network's maps shrink to one pixel.
        """
        order = np.random.default_rng((self.experiment.seed, epoch, 0, ORDER_STREAM)).permutation(indices)
        return self._augmented_batches(self._split(order, join_single=True), epoch)

    def augmented(self, indices: np.ndarray, epoch: int) -> Iterator[Batch]:
        """Augmented views in the given order: the paper's validation."""
        return self._augmented_batches(self._split(indices), epoch)

    def clean(self, indices: np.ndarray) -> Iterator[Batch]:
        """Centre crops in the given order."""
        return self._clean_batches(self._split(indices))

    def views(self, indices: np.ndarray, epoch: int) -> np.ndarray:
        """Augmented views to look at: uint8 (n, size, size, 3)."""
        return np.stack([self._augmented_view(int(index), epoch) for index in indices])

    def _split(self, indices: np.ndarray, *, join_single: bool = False) -> list[np.ndarray]:
        """Batches of indices; with ``join_single``, a last batch of one joins the batch before it."""
        size = self.experiment.batch_size
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        if join_single and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [np.concatenate(batches[-2:])]
        return batches

    def _augmented_batches(self, batches: Sequence[np.ndarray], epoch: int) -> Iterator[Batch]:
        return self._in_threads(lambda index: self._augmented_view(index, epoch), batches)

    def _clean_batches(self, batches: Sequence[np.ndarray]) -> Iterator[Batch]:
        return self._in_threads(
            lambda index: centre_crop(self.photos.read(index), self.experiment.image_size), batches
        )

    def _augmented_view(self, index: int, epoch: int) -> np.ndarray:
        pixels = self.photos.read(index)
        height, width, _ = pixels.shape
        augmentation = draw_augmentation(self.experiment, epoch, index, width, height)
        return self.augment(pixels, augmentation, self.experiment.image_size)

    def _in_threads(self, view: Callable[[int], np.ndarray], batches: Sequence[np.ndarray]) -> Iterator[Batch]:
        def load(batch: np.ndarray) -> Batch:
            images = np.stack([view(int(index)) for index in batch])
            return pinned(images, self.device), pinned(self.photos.labels[batch], self.device)

        # beside a network on the same cores, the threads give way to it
        for images, labels in in_threads(load, batches, give_way=self.device.type == "cpu"):
            yield send(images, self.device), send(labels, self.device)


def pinned(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array as a tensor on the host; for CUDA in pinned, contiguous memory, without which sending waits."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory() if device.type == "cuda" else tensor


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A `pinned` tensor on the device; a CUDA device copies it while the host goes on."""
    return tensor.to(device, non_blocking=device.type == "cuda")
