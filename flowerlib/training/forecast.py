"""What a session will take: what is downloaded before it begins, and, from its first batches, how long it will be."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from flowerlib.data.photos import bytes_to_fetch
from flowerlib.data.split import Split
from flowerlib.experiment import Experiment
from flowerlib.training.loader import Batch
from flowerlib.training.model import megabytes_to_fetch

TIMED_BATCHES = 5  # after the first, which is slower
BACKWARD = 2  # times the work of a forward pass, which is all that evaluation takes


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


def with_forecast(
    batches: Iterator[Batch], experiment: Experiment, parts: Split, epochs_left: int
) -> Iterator[Batch]:
    """Pass a training pass's batches on; after the first few, say how long the epoch and the session will take.

    The time between batches must be the network's: on a GPU, which is asked for nothing meanwhile, it is not.
    """
    photos = 0
    for number, (images, labels) in enumerate(batches):
        if number == 1:
            begun = perf_counter()
        if number == 1 + TIMED_BATCHES:
            print(_in_words((perf_counter() - begun) / photos, experiment, parts, epochs_left), flush=True)
        yield images, labels
        photos += len(labels) if number else 0


def _in_words(per_photo: float, experiment: Experiment, parts: Split, epochs_left: int) -> str:
    evaluation = per_photo * len(parts.validation) / (1 if experiment.freeze else 1 + BACKWARD)
    epoch = per_photo * len(parts.train) + 2 * evaluation
    left = epochs_left * epoch + experiment.repeats * evaluation
    return (
        f"Judging by its first batches, an epoch takes {_duration(epoch)}, and the rest of the session "
        f"{_duration(left)}."
    )


def _duration(seconds: float) -> str:
    """``about 12 seconds``."""
    if seconds < 100:
        return f"about {seconds:.{0 if seconds >= 10 else 1}f} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 6000 else f"about {seconds / 3600:.1f} hours"
