"""Checkpoints: last.pt to resume from, last.before.pt in case it is damaged, best.pt to use."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowerlib.errors import UserError, one_line
from flowerlib.experiment import Experiment
from flowerlib.files import replacing
from flowerlib.runs import (
    BEFORE,
    BEST,
    LAST,
    CalibrationInfo,
    EarlierEpochs,
    EpochMetrics,
    RunInfo,
    describe_differences,
    inputs,
    training_inputs,
)


class DamagedError(UserError):
    """A checkpoint that can't be used."""


def space_needed(model: nn.Module) -> int:
    """Bytes that a run's checkpoints take at most: last.pt, its predecessor, its successor being written, best.pt."""
    state = sum(tensor.nbytes for tensor in model.state_dict().values())
    momentum = sum(parameter.nbytes for parameter in model.parameters())
    return 3 * (state + momentum) + state


def write_best(run_dir: Path, info: RunInfo, model: nn.Module, calibration: CalibrationInfo) -> None:
    """Write best.pt: the network with the best clean validation accuracy so far, and what using it takes."""
    _write(
        run_dir / BEST,
        {
            "model": info.settings.model,
            "classes": list(info.dataset.classes),
            "image_size": info.settings.image_size,
            "mean": info.input.mean,
            "std": info.input.std,
            **calibration.model_dump(),
            "state_dict": model.state_dict(),
        },
    )


def read_calibration(run_dir: Path) -> CalibrationInfo | None:
    """The calibration in best.pt; None if there is no such file, or one of an earlier version."""
    try:
        best = read_checkpoint(run_dir / BEST)
        return CalibrationInfo(**{name: best[name] for name in CalibrationInfo.model_fields})
    except (DamagedError, KeyError):  # no reason for a session to fail when all else is done
        return None


def write_last(
    run_dir: Path,
    info: RunInfo,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    history: Sequence[EpochMetrics],
    logits: torch.Tensor,
) -> None:
    """Write last.pt, with everything the next epoch needs; the previous one becomes last.before.pt.

    Args:
        run_dir: the session's folder.
        info: run.json's content; its inputs are kept, to be compared on resume.
        model, optimizer, scheduler: their states after the last epoch in ``history``.
        history: the epochs so far.
        logits: clean validation logits (n, classes) after the last epoch.
    """
    _write(
        run_dir / LAST,
        {
            "inputs": inputs(info),
            "precision": info.precision,
            "draws": info.draws,
            "computed": info.computed.model_dump(),
            "earlier": [part.model_dump() for part in info.earlier],
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "history": [dict(row) for row in history],
            "logits": logits,
        },
        keep=run_dir / BEFORE,
    )


@dataclass(frozen=True)
class Progress:
    """How far a session has come.

    Attributes:
        history: the epochs so far.
        logits: clean validation logits (n, classes) after the last one; None before the first.
        earlier: where they were computed, if not where this process computes.
        precision: in which they were computed; None before the first.
    """

    history: list[EpochMetrics]
    logits: torch.Tensor | None
    earlier: tuple[EarlierEpochs, ...]
    precision: str | None


def read_last(
    run_dir: Path,
    info: RunInfo,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> Progress:
    """Load last.pt into model, optimizer and scheduler, or last.before.pt if it is damaged.

    Raises:
        UserError: no checkpoint can be read, or it comes from other settings, data, split, weights or random draws.
    """
    damaged = []
    for path in (run_dir / LAST, run_dir / BEFORE):
        if path.exists():
            try:
                progress = _restore(path, info, model, optimizer, scheduler)
            except DamagedError as error:
                damaged.append(str(error))
            else:
                if damaged:
                    (run_dir / LAST).unlink()  # else it would replace the good one
                for reason in damaged:
                    print(reason, flush=True)
                if len(progress.history) < info.settings.epochs:
                    print(f"Resuming after epoch {progress.history[-1].epoch} of {path}.", flush=True)
                return progress
    if damaged:
        raise UserError(f"{' '.join(damaged)} Run with --force to begin again.")
    return Progress([], None, (), None)


def _restore(
    path: Path,
    info: RunInfo,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> Progress:
    checkpoint = read_checkpoint(path)
    try:
        _refuse_other_checkpoint(path, checkpoint, info)
        history = _read_history(checkpoint["history"])
        logits = checkpoint["logits"].reshape(info.split.validation, len(info.dataset.classes))
        earlier = tuple(EarlierEpochs.model_validate(part) for part in checkpoint["earlier"])
        computed = EarlierEpochs.model_validate({**checkpoint["computed"], "epochs": len(history)})
        if computed.model_dump(exclude={"epochs"}) != info.computed.model_dump():
            earlier = (*earlier, computed)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])
    except UserError:
        raise
    except Exception as error:  # intact, but not what we write: anything may be wrong with it
        raise _damaged(path, error) from error
    return Progress(history, logits, earlier, checkpoint["precision"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, checked for damage; no code in it is run.

    Raises:
        DamagedError: it is missing, damaged, or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch writes a zip file's checksums, but never checks them
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} in it is damaged")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a damaged file PyTorch's reader raises nearly anything
        raise _damaged(path, error) from error


def _refuse_other_checkpoint(path: Path, checkpoint: dict[str, Any], info: RunInfo) -> None:
    now = training_inputs(info)
    before = _with_defaults(checkpoint["inputs"], now)
    if info.settings.precision != "auto":
        now, before = now | {"precision": info.precision}, before | {"precision": checkpoint["precision"]}
    if differences := describe_differences(before, now):
        raise UserError(
            f"{path} comes from other settings, photos, split or weights ({differences}). Run with --force to begin "
            "again, or choose another folder with --runs; in a notebook, another session or run_dir."
        )
    draws = checkpoint.get("draws", 1)
    trains = len(checkpoint["history"]) < info.settings.epochs
    if draws != info.draws and trains:
        raise UserError(
            f"{path} was written by another version of flowerlib, whose random draws differ (version {draws} then, "
            f"{info.draws} now): resuming would mix the two in one session. Run with --force to begin again."
        )


def _with_defaults(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's inputs, with the defaults of settings that were added since it was written.

    Settings that no longer count as inputs are left out.
    """
    try:
        settings = Experiment(**{name: value for name, value in before.items() if name in Experiment.model_fields})
    except UserError as error:
        raise ValueError(f"its settings are not valid: {error}") from error
    others = {name: value for name, value in before.items() if name not in Experiment.model_fields}
    return {name: value for name, value in settings if name in now} | others


def _read_history(rows: list[dict[str, Any]]) -> list[EpochMetrics]:
    history = [EpochMetrics(**row) for row in rows]
    if not history or [row.epoch for row in history] != list(range(len(history))):
        raise ValueError("its epochs are not in order")
    return history


def _damaged(path: Path, error: Exception) -> DamagedError:
    # PyTorch's own message about a file that holds more advises the user to run the code in it
    unsafe = isinstance(error, pickle.UnpicklingError)
    reason = "it is damaged, or holds more than tensors and plain values" if unsafe else one_line(error)
    return DamagedError(f"The checkpoint {path} can't be read ({reason}).")


def _write(path: Path, content: dict[str, Any], keep: Path | None = None) -> None:
    packed = io.BytesIO()  # when PyTorch itself writes to a full disk, its error does not say so
    torch.save(content, packed)
    with replacing(path, keep) as temporary:
        temporary.write_bytes(packed.getbuffer())
