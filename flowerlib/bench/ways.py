"""Ways to train the same network on the same photos: ours, the course's, and another library's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torchvision import transforms
from torchvision.datasets import ImageFolder

from flowerlib.data.photos import PhotoSet
from flowerlib.data.threads import WORKERS
from flowerlib.experiment import IMAGENET_MEAN, IMAGENET_STD, Experiment
from flowerlib.training.augment import augment_reference
from flowerlib.training.device import make_reproducible, pick_device, pick_precision
from flowerlib.training.gpu_loader import pick_loader
from flowerlib.training.loader import Loader
from flowerlib.training.loop import Computation, train_epoch
from flowerlib.training.model import build_model, load_weights, standardization


class Way(NamedTuple):
    """A network and how it is trained.

    Attributes:
        model: on its device, from the settings' weights.
        batches: those of one epoch after the other, at each call.
        train: a pass over some of them.
    """

    model: nn.Module
    batches: Callable[[], Iterator]
    train: Callable[[Iterator], object]


def fast(experiment: Experiment, photos: PhotoSet, indices: np.ndarray) -> Way:
    """What a session uses."""
    device = pick_device(experiment.device)
    make_reproducible(device)
    return _ours(experiment, pick_loader(experiment, photos, device), indices)


def reference(experiment: Experiment, photos: PhotoSet, indices: np.ndarray) -> Way:
    """Our loop, with augmentation in Pillow, in float32."""
    device = pick_device(experiment.device)
    make_reproducible(device)
    loader = Loader(experiment, photos, device, augment=augment_reference)
    return _ours(experiment.model_copy(update={"precision": "float32"}), loader, indices)


def _ours(experiment: Experiment, loader: Loader, indices: np.ndarray) -> Way:
    model = _network(experiment, loader.photos).to(loader.device, memory_format=torch.channels_last)
    optimizer = SGD(model.parameters(), lr=experiment.learning_rate, momentum=experiment.momentum)
    precision = pick_precision(experiment.precision, loader.device)
    computation = Computation(loader.device, precision, standardization(experiment.model))
    epochs = count()
    return Way(
        model,
        lambda: loader.training(indices, next(epochs)),
        lambda batches: train_epoch(model, optimizer, batches, computation),
    )


def course(experiment: Experiment, photos: PhotoSet, indices: np.ndarray) -> Way:
    """The usual template: ImageFolder, Pillow's transforms, worker processes, float32."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(experiment.image_size),
            transforms.RandomHorizontalFlip(experiment.flip),
            transforms.RandomRotation(experiment.rotation),
            transforms.ColorJitter(
                experiment.brightness, experiment.contrast, experiment.saturation, experiment.hue
            ),
            transforms.RandomAffine(0, translate=(experiment.translation, experiment.translation)),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )  # fmt: skip
    data = ImageFolder(str(photos.root), transform, allow_empty=True)  # of class folders, without our split
    data.samples = [(str(photos.root / photos.paths[index]), int(photos.labels[index])) for index in indices]
    batches = torch.utils.data.DataLoader(
        data, experiment.batch_size, shuffle=True, num_workers=WORKERS, drop_last=True
    )
    device = pick_device(experiment.device)
    model = _network(experiment, photos).to(device)
    optimizer = SGD(model.parameters(), lr=experiment.learning_rate, momentum=experiment.momentum)

    def train(some: Iterator) -> None:
        model.train()
        running_loss, correct = 0.0, 0
        for images, labels in some:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            logits = model(images)
            loss = cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item() * len(images)
            correct += (logits.argmax(1) == labels).sum().item()

    return Way(model, lambda: iter(batches), train)


def fastai(experiment: Experiment, photos: PhotoSet, indices: np.ndarray) -> Way:
    """fastai's Learner, with its own augmentation at this size, in float32."""
    from fastai.vision import all as fast

    data = fast.ImageDataLoaders.from_path_func(
        photos.root,
        [photos.root / photos.paths[index] for index in indices],
        lambda path: path.parent.name,
        valid_pct=0,
        seed=experiment.seed,
        bs=experiment.batch_size,
        num_workers=WORKERS,
        item_tfms=fast.RandomResizedCrop(experiment.image_size),
        batch_tfms=[*fast.aug_transforms(), fast.Normalize.from_stats(IMAGENET_MEAN, IMAGENET_STD)],
        device=pick_device(experiment.device),
    )
    model = _network(experiment, photos).to(pick_device(experiment.device))
    momentum = partial(fast.SGD, mom=experiment.momentum)
    learner = fast.Learner(
        data, model, fast.CrossEntropyLossFlat(), momentum, experiment.learning_rate, metrics=fast.accuracy
    )
    learner.create_opt()

    def train(some: Iterator) -> None:
        learner.model.train()
        for images, labels in some:
            loss = learner.loss_func(learner.model(images), labels)
            loss.backward()
            learner.opt.step()
            learner.opt.zero_grad()

    return Way(model, lambda: iter(data.train), train)


def _network(experiment: Experiment, photos: PhotoSet) -> nn.Module:
    torch.manual_seed(experiment.seed)
    return build_model(experiment.model, len(photos.classes), load_weights(experiment.weights, experiment.model))
