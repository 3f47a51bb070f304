"""What run.json says: the inputs that decide a result, and where it was computed."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from flowerlib.dataset import PhotoSet, Split
from flowerlib.errors import UserError, brief
from flowerlib.experiment import Experiment
from flowerlib.files import PROJECT
from flowerlib.model import Weights


def describe_run(
    experiment: Experiment, photos: PhotoSet, parts: Split, weights: Weights, device: torch.device, precision: str
) -> dict[str, Any]:
    """The content of run.json for a run that has not finished.

    ``device``, ``versions`` and ``commit`` are of the process that computes now; ``earlier`` lists those of
    epochs before it, if others computed them.
    """
    counts = np.bincount(photos.labels, minlength=len(photos.classes)).tolist()
    return {
        "finished": False,
        "settings": experiment.settings(),
        "seed": experiment.seed,
        "dataset": {
            "name": photos.name,
            "photos": len(photos),
            "classes": dict(zip(photos.classes, counts, strict=True)),
            "fingerprint": photos.fingerprint,
            "skipped": photos.skipped,
        },
        "split": {
            "train": len(parts.train),
            "validation": len(parts.validation),
            "fingerprint": parts.fingerprint,
        },
        "weights": weights.record(),
        "precision": precision,
        "device": describe_device(device),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
        "commit": _commit(),
        "earlier": [],
    }


def inputs(info: dict[str, Any]) -> dict[str, Any]:
    """What decides a run's results, as flat values: settings, and the data's, split's and weights' fingerprints."""
    # how often the last network is evaluated again changes nothing else
    settings = {key: value for key, value in info["settings"].items() if key != "repeats"}
    return settings | {
        "data's fingerprint": info["dataset"]["fingerprint"],
        "split's fingerprint": info["split"]["fingerprint"],
        "weights' sha256": info["weights"]["sha256"],
    }


def describe_differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the values that differ, ``epochs: 20 then, 2 now``; empty where none does."""
    return "; ".join(
        f"{brief(key)}: {brief(before.get(key))} then, {brief(now.get(key))} now"
        for key in now | before
        if before.get(key) != now.get(key)
    )


def pick_device(name: str) -> torch.device:
    """The device of a setting; ``auto`` takes CUDA, then Apple's GPU, then the CPU.

    Raises:
        UserError: the device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in there.items() if available)
    if not there[name]:
        raise UserError(f"This machine, or this build of PyTorch, has no device '{name}'. Use --set device=auto.")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """The precision of a setting, ``float32`` or ``bfloat16``.

    ``auto`` takes bfloat16 where the processor multiplies it in hardware: elsewhere it is emulated, and slow.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        there = torch.cpu.get_capabilities()
        fast = device.type == "cpu" and any(there.get(unit) for unit in ("avx512_bf16", "amx_bf16"))
    return "bfloat16" if fast else "float32"


def describe_device(device: torch.device) -> dict[str, Any]:
    """The device's kind and name, and the number of CPU threads."""
    cpu = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return {
        "type": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def _commit() -> str | None:
    """The project's git commit, with a mark if files differ from it; None outside a git checkout."""
    try:
        command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
