"""run.json at the start of a session: its inputs, and what computes it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

from flowerlib.data.photos import PhotoSet
from flowerlib.data.split import Split
from flowerlib.experiment import Experiment
from flowerlib.files import PROJECT
from flowerlib.runs import DatasetInfo, RunInfo, SplitInfo
from flowerlib.training.augment import DRAWS
from flowerlib.training.device import describe_device
from flowerlib.training.model import Weights, describe_model, standardization

PACKAGES = ("torch", "torchvision", "numpy", "pillow")  # those that can change a result


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
