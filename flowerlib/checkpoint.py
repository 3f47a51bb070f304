"""Checkpoints: last.pt to go on from, best.pt to use."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowerlib.errors import UserError
from flowerlib.files import replacing
from flowerlib.metrics import EpochMetrics
from flowerlib.provenance import describe_differences, inputs


def write_best(run_dir: Path, info: dict[str, Any], model: nn.Module) -> None:
    """Write best.pt: the network of the best clean validation accuracy so far, and how to use it."""
    settings = info["settings"]
    _write(
        run_dir / "best.pt",
        {
            "model": settings["model"],
            "classes": list(info["dataset"]["classes"]),
            "image_size": settings["image_size"],
            "state_dict": model.state_dict(),
        },
    )


def write_last(
    run_dir: Path,
    info: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    history: Sequence[EpochMetrics],
    logits: torch.Tensor,
) -> None:
    """Write last.pt: all that the next epoch needs.

    Args:
        run_dir: the session's folder.
        info: run.json's content, from which the inputs are kept to be compared on resume.
        model, optimizer, scheduler: their states after the last epoch of ``history``.
        history: the epochs so far.
        logits: clean validation logits (n, classes) of the last epoch.
    """
    _write(
        run_dir / "last.pt",
        {
            "inputs": inputs(info),
            "precision": info["precision"],
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "history": [asdict(row) for row in history],
            "logits": logits,
        },
    )


def read_last(
    run_dir: Path,
    info: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[list[EpochMetrics], torch.Tensor | None]:
    """Put the states of last.pt into model, optimizer and scheduler.

    Returns:
        The epochs so far, and the last one's clean validation logits; none where there is no checkpoint.

    Raises:
        UserError: the checkpoint can't be read, or comes from other settings, data, split or weights.
    """
    path = run_dir / "last.pt"
    if not path.exists():
        return [], None
    checkpoint = _read(path)
    before = checkpoint["inputs"] | {"precision in use": checkpoint["precision"]}
    if differences := describe_differences(before, inputs(info) | {"precision in use": info["precision"]}):
        raise UserError(
            f"{path} comes from other inputs ({differences}). Run with --force to begin again, or choose another "
            "folder with --runs; in a notebook, another session or run_dir."
        )
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    history = [EpochMetrics(**row) for row in checkpoint["history"]]
    print(f"going on after epoch {history[-1].epoch} of {path}", flush=True)
    return history, checkpoint["logits"]


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(
            f"The checkpoint {path} can't be read ({str(error).strip().splitlines()[0]}). "
            "Run with --force to begin again."
        ) from error


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        torch.save(content, temporary)
