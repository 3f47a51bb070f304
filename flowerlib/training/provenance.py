"""run.json at the start of a session: its inputs, and what computes it. What can be known to fail fails here."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

from flowerlib.data.photos import PhotoSet
from flowerlib.data.split import Split, split_photos
from flowerlib.experiment import Experiment
from flowerlib.files import PROJECT
from flowerlib.runs import DatasetInfo, RunInfo, SplitInfo
from flowerlib.training.augment import DRAWS
from flowerlib.training.checkpoint import space_needed
from flowerlib.training.device import describe_device, pick_device, pick_precision
from flowerlib.training.model import Weights, check_model, describe_model, load_weights, standardization

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pillow")  # those that can change a result


def plan_run(experiment: Experiment, photos: PhotoSet) -> tuple[RunInfo, int]:
    """The run.json with which a session begins, and how many bytes its checkpoints take.

    Raises:
        UserError: the weights, the network or the device can't be used.
    """
    device = pick_device(experiment.device)
    weights = load_weights(experiment.weights, experiment.model)
    model = check_model(experiment, len(photos.classes), weights)
    precision = pick_precision(experiment.precision, device)
    info = describe_run(experiment, photos, split_photos(photos, experiment), weights, model, device, precision)
    return info, space_needed(model)


def describe_run(
    experiment: Experiment,
    photos: PhotoSet,
    split_indices: Split,
    weights: Weights,
    model: nn.Module,
    device: torch.device,
    precision: str,
) -> RunInfo:
    """run.json for a run that has not finished; device, versions and commit are those of this process."""
    counts = np.bincount(photos.labels, minlength=len(photos.classes)).tolist()
    return RunInfo(
        format=2,
        finished=False,
        settings=experiment,
        seed=experiment.seed,
        dataset=DatasetInfo(
            name=photos.name,
            photos=len(photos),
            classes=dict(zip(photos.classes, counts, strict=True)),
            fingerprint=photos.fingerprint,
            skipped=photos.skipped,
        ),
        split=SplitInfo(
            train=len(split_indices.train),
            validation=len(split_indices.validation),
            test=len(split_indices.test),
            fingerprint=split_indices.fingerprint,
        ),
        weights=weights.info,
        precision=precision,
        model=describe_model(model, experiment.image_size),
        input=standardization(experiment.model),
        draws=DRAWS,
        device=describe_device(device),
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        commit=_commit(),
    )


def _commit() -> str | None:
    """The project's git commit, with a mark if files differ from it; None outside a git checkout."""
    try:
        command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        # inside another project's git hook, git's variables name that project
        ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=ours).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
