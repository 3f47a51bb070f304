"""A run's tables: what training writes and everything after it reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flowerlib.errors import UserError
from flowerlib.files import write_text


@dataclass(frozen=True)
class EpochMetrics:
    """One row of metrics.csv.

    Attributes:
        epoch: from 0.
        learning_rate: of this epoch.
        train_loss, train_acc: over the augmented training photos, while the weights change.
        val_loss, val_acc: over the validation photos, clean (centre crop).
        val_aug_loss, val_aug_acc: over the validation photos, augmented like training: the paper's protocol.
        train_seconds: wall time of the training pass.
        val_seconds: wall time of both validation passes.

    Losses are mean cross-entropies in nats; accuracies are fractions.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float
    val_aug_loss: float
    val_aug_acc: float
    train_seconds: float
    val_seconds: float


METRICS_COLUMNS = tuple(item.name for item in fields(EpochMetrics))


@dataclass(frozen=True)
class Run:
    """The tables of one session, as read from its folder.

    Attributes:
        name: the session's name.
        folder: where its files lie.
        info: run.json.
        metrics: a row an epoch, columns of `EpochMetrics`.
        predictions: a row a validation photo: ``photo``, ``label``, and a probability for each class.
    """

    name: str
    folder: Path
    info: dict[str, Any]
    metrics: pd.DataFrame
    predictions: pd.DataFrame

    @property
    def classes(self) -> list[str]:
        """The classes, alphabetically: the order of the network's outputs."""
        return list(self.predictions.columns[2:])


def write_metrics(path: Path, history: Sequence[EpochMetrics]) -> None:
    """Write metrics.csv; floats keep all their digits, so that reading gives back the same numbers."""
    frame = pd.DataFrame([asdict(row) for row in history], columns=METRICS_COLUMNS)
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def write_predictions(
    path: Path, photos: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> None:
    """Write predictions.csv.

    Args:
        path: the file.
        photos: n relative paths.
        labels: (n,) class indices.
        probabilities: (n, number of classes), rows summing to 1.
        classes: class names.
    """
    frame = pd.DataFrame(probabilities, columns=list(classes))
    frame.insert(0, "photo", list(photos))
    frame.insert(1, "label", [classes[label] for label in labels])
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def read_run(folder: Path) -> Run:
    """Read a session's folder.

    Raises:
        UserError: a file is missing or is not what it should be.
    """
    info = read_info(folder)
    if info is None:
        raise UserError(f"There is no run in {folder}: run.json is missing. Run the session first.")
    metrics = _read_table(folder / "metrics.csv")
    if tuple(metrics.columns) != METRICS_COLUMNS or not len(metrics):
        raise UserError(f"{folder / 'metrics.csv'} must have rows under the columns {', '.join(METRICS_COLUMNS)}.")
    # classes are text, also those called 0, 1 or NA
    predictions = _read_table(folder / "predictions.csv", dtype={"photo": str, "label": str}, keep_default_na=False)
    if list(predictions.columns[:2]) != ["photo", "label"]:
        raise UserError(f"{folder / 'predictions.csv'} must begin with the columns photo, label.")
    return Run(folder.name, folder, info, metrics, predictions)


def read_runs(folder: Path, order: Sequence[str] = ()) -> list[Run]:
    """Read every finished session of ``folder``: those named in ``order`` first, then by name.

    Raises:
        UserError: there is none.
    """
    folders = [path.parent for path in folder.glob("[!.]*/run.json")]
    runs = [read_run(path) for path in folders if (read_info(path) or {}).get("finished")]
    if not runs:
        raise UserError(f"There is no finished session in {folder}. Run them first: python -m flowerlib run")
    place = {name: position for position, name in enumerate(order)}
    return sorted(runs, key=lambda run: (place.get(run.name, len(place)), run.name))


def read_info(folder: Path) -> dict[str, Any] | None:
    """Read run.json; None where there is none yet."""
    path = folder / "run.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} can't be read ({error}). Remove the folder, or run again with --force.") from error
    if not isinstance(info, dict) or not isinstance(info.get("settings"), dict):
        raise UserError(f"{path} lacks the session's settings. Remove the folder, or run again with --force.")
    return info


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Write run.json."""
    write_text(folder / "run.json", json.dumps(info, indent=2) + "\n")


def confusion_matrix(predictions: pd.DataFrame) -> pd.DataFrame:
    """Count the validation photos by label (rows) and most probable class (columns)."""
    classes = list(predictions.columns[2:])
    predicted = predictions[classes].idxmax(axis="columns")
    return pd.crosstab(predictions["label"], predicted).reindex(index=classes, columns=classes, fill_value=0)


def _read_table(path: Path, **options: Any) -> pd.DataFrame:
    try:
        return pd.read_csv(path, **options)
    except (OSError, ValueError) as error:  # pandas' parser errors and bad UTF-8 are ValueErrors
        raise UserError(f"{path} can't be read as a table ({error}). Run the session again with --force.") from error
