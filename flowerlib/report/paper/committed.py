"""What the paper's text says of its method, what its author's code does as committed, and what runs of ours do.

The code is that of the third session (ResNet-34, batch 32), the only one committed; it may have been edited after
the runs. Source: `flowerlib.report.paper`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from flowerlib.experiment import Experiment
from flowerlib.runs import Run, RunInfo

FILE = Path(__file__).parent / "as_committed.csv"


def settings_table(runs: Sequence[Run]) -> pd.DataFrame:
    """The method three times.

    Returns:
        A row a setting (column ``setting``): ``text`` (the paper's section 3), ``code`` (as committed), ``runs``
        (computed from run.json of ``runs``; several values where they differ).
    """
    table = pd.read_csv(FILE)
    table["runs"] = [_of_all(runs, OURS[setting]) for setting in table["setting"]]
    return table


def _of_all(runs: Sequence[Run], say: Callable[[RunInfo], str]) -> str:
    return "; ".join(dict.fromkeys(say(run.info) for run in runs))


def _jitter(settings: Experiment) -> str:
    names = ("brightness", "contrast", "saturation", "hue")
    return ", ".join(f"{name} {getattr(settings, name):g}" for name in names if getattr(settings, name)) or "none"


def _translation(settings: Experiment) -> str:
    return f"up to {100 * settings.translation:g} %" if settings.translation else "none"


def _order(settings: Experiment) -> str:
    steps = {
        "crop": True,
        "flip": settings.flip,
        "rotation": settings.rotation,
        "jitter": _jitter(settings) != "none",
        "translation": settings.translation,
    }
    return ", ".join([*(name for name, used in steps.items() if used), "tensor", "normalize"])


def _crop(settings: Experiment) -> str:
    return f"{'RandomResizedCrop' if settings.random_crop else 'centre crop'} {settings.image_size}"


def _normalization(info: RunInfo) -> str:
    mean, deviation = (", ".join(f"{value:.3g}" for value in values) for values in (info.input.mean, info.input.std))
    return f"mean {mean}; deviation {deviation}"


def _split(info: RunInfo) -> str:
    parts = info.split
    if info.settings.folds:
        return f"split seed {info.settings.split_seed}: {info.settings.folds} folds, {parts.validation:,} in all"
    sides = " and ".join(f"{count:,}" for count in (parts.train, parts.validation, parts.test) if count)
    return f"split seed {info.settings.split_seed}: {sides}"


def _weights(info: RunInfo) -> str:
    known = {"imagenet": "pre-trained on ImageNet", "none": "random", "file": "from a file"}[info.weights.source]
    return f"trained on {info.weights.trained_on}" if info.weights.trained_on else known


def _optimizer(settings: Experiment) -> str:
    return (
        f"SGD {settings.learning_rate:g}, momentum {settings.momentum:g}; "
        f"StepLR {settings.lr_step}, {settings.lr_factor:g}"
    )


def _hardware(info: RunInfo) -> str:
    device = info.device
    return f"{device.name}, {device.threads} threads" if device.type == "cpu" else device.name


OURS: dict[str, Callable[[RunInfo], str]] = {
    "crop": lambda info: _crop(info.settings),
    "horizontal flip": lambda info: f"probability {info.settings.flip:g}",
    "rotation": lambda info: f"±{info.settings.rotation:g}°",
    "colour jitter": lambda info: _jitter(info.settings),
    "translation": lambda info: _translation(info.settings),
    "normalization": _normalization,
    "order": lambda info: _order(info.settings),
    "split": _split,
    "validation transform": lambda info: "both: centre crop, and the training transform",
    "weights": _weights,
    "trained": lambda info: "the last layer" if info.settings.freeze else "all parameters",
    "optimizer and schedule": lambda info: _optimizer(info.settings),
    "loss and accuracy": lambda info: "exact means",
    "chosen network": lambda info: "the last epoch's",
    "seeds": lambda info: str(info.seed),
    "precision": lambda info: info.precision,
    "hardware": _hardware,
}
