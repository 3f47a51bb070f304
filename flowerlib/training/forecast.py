"""What a session will take, said before it begins: what is downloaded, and how long it will train here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch.optim import SGD

from flowerlib.data.photos import PhotoSet, bytes_to_fetch
from flowerlib.data.split import Split
from flowerlib.experiment import Experiment
from flowerlib.runs import epochs_done, is_complete
from flowerlib.training.device import pick_device, pick_precision
from flowerlib.training.loop import Batches, Computation, predict, train_epoch
from flowerlib.training.model import build_model, load_weights, megabytes_to_fetch, standardization
from flowerlib.training.resident import pick_loader

SECONDS = 0.5  # for each of the two measurements, after a first batch, which is slower


def describe_downloads(experiment: Experiment) -> str:
    """How much a session will download, as two sentences.

    Raises:
        UserError: there is no such network.
    """
    megabytes = {
        "Photos": bytes_to_fetch(experiment.data) / 1e6,
        "Weights": megabytes_to_fetch(experiment.weights, experiment.model),
    }
    return " ".join(
        f"{name}: about {size:.0f} MB to download." if size else f"{name}: nothing to download."
        for name, size in megabytes.items()
    )


def describe_duration(experiment: Experiment, photos: PhotoSet, parts: Split, run_dir: Path) -> str:
    """How long an epoch and the rest of a session will take, as a sentence; estimated from a few batches.

    They go through a network with random weights that costs what the session's does and is thrown away. Training
    seeds torch when it begins: nothing of this reaches it.
    """
    if is_complete(run_dir, experiment):
        return "This session is finished: nothing is left to train."
    training, evaluation = _seconds_per_photo(experiment, photos, parts)
    torch.cuda.empty_cache()  # `pick_loader` asks how much memory is free
    epoch = training * len(parts.train) + 2 * evaluation * len(parts.validation)
    left = experiment.epochs - epochs_done(run_dir)
    total = left * epoch + experiment.repeats * evaluation * len(parts.validation)
    return (
        f"An epoch takes about {_in_words(epoch)} here. All that is left, {left} epochs and {experiment.repeats} "
        f"evaluations of the last network, takes about {_in_words(total)}. This is an estimate from a few batches."
    )


def _seconds_per_photo(experiment: Experiment, photos: PhotoSet, parts: Split) -> tuple[float, float]:
    """Wall time for a photo in training, and in evaluation."""
    device = pick_device(experiment.device)
    precision = pick_precision(experiment.precision, device)
    computation = Computation(device, precision, standardization(experiment.model))
    loader = pick_loader(experiment, photos, device)
    model = build_model(
        experiment.model, len(photos.classes), load_weights("none", experiment.model), experiment.freeze
    ).to(device, memory_format=torch.channels_last)
    still = SGD(model.parameters(), lr=0.0, momentum=experiment.momentum)  # whatever the rate, no loss overflows
    return (
        _time(lambda batches: train_epoch(model, still, batches, computation), loader.training, parts.train),
        _time(lambda batches: predict(model, batches, computation), loader.augmented, parts.validation),
    )


def _time(
    work: Callable[[Batches], object], load: Callable[[np.ndarray, int], Batches], indices: np.ndarray
) -> float:
    """Seconds per photo of ``work``, which goes over batches; they are loaded meanwhile, as in training."""
    batches = (batch for epoch in count() for batch in load(indices, epoch))
    work([next(batches)])
    begun, seen = perf_counter(), []

    def some() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while perf_counter() - begun < SECONDS:
            batch = next(batches)
            seen.append(len(batch[1]))
            yield batch

    work(some())
    return (perf_counter() - begun) / sum(seen)


def _in_words(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.1f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
