"""A run's tables: what training writes and everything after it reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flowerlib.errors import UserError, brief
from flowerlib.experiment import Experiment, base_name
from flowerlib.files import is_text, write_text


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


def _is_text_or_none(value: object) -> bool:
    return value is None or is_text(value)


def _is_missing_or_text(value: object) -> bool:  # runs of earlier versions say nothing of it
    return value is ... or _is_text_or_none(value)


def are_earlier_parts(value: object) -> bool:
    """Whether a value is what run.json lists as ``earlier``: where the epochs before a resume were computed."""
    parts = [] if value is ... else value
    shape = {"epochs": int, **_COMPUTED}
    return isinstance(parts, list) and not any(any(_wrong_parts(part, shape)) for part in parts)


def _are_counts(value: object) -> bool:
    return isinstance(value, dict) and all(is_text(name) and isinstance(value[name], int) for name in value)


# where a run was computed, or its earlier epochs
_COMPUTED = {
    "device": {"type": is_text, "name": is_text, "threads": int},
    "versions": lambda value: isinstance(value, dict) and all(map(is_text, (*value, *value.values()))),
    "commit": _is_text_or_none,
}
# what is read from run.json: by key, a type, a function that tells whether a value will do, or more keys
_INFO = {
    "finished": bool,
    "settings": dict,
    "seed": int,
    "dataset": {"name": is_text, "photos": int, "classes": _are_counts, "fingerprint": is_text},
    "split": {"train": int, "validation": int, "fingerprint": is_text},
    "weights": {
        "source": ("imagenet", "file", "none").__contains__,
        "file": _is_text_or_none,
        "sha256": _is_text_or_none,
        "trained_on": _is_missing_or_text,
    },
    "precision": is_text,
    "earlier": are_earlier_parts,
    **_COMPUTED,
}


@dataclass(frozen=True)
class Run:
    """The tables of one session, as read from its folder.

    Attributes:
        name: the session's name.
        folder: where its files lie.
        info: run.json.
        metrics: a row an epoch, columns of `EpochMetrics`.
        predictions: a row a validation photo: ``photo``, ``label``, and a probability for each class.
        repeats: accuracies of the last epoch's network on the validation photos, augmented anew each time.
    """

    name: str
    folder: Path
    info: dict[str, Any]
    metrics: pd.DataFrame
    predictions: pd.DataFrame
    repeats: tuple[float, ...] = ()

    @property
    def classes(self) -> list[str]:
        """The classes, alphabetically: the order of the network's outputs."""
        return list(self.predictions.columns[2:])

    @property
    def spread(self) -> None:
        """Of one run there is none; see `Session`."""
        return None


@dataclass(frozen=True)
class Session:
    """Runs that differ in nothing but the seed; one, if a session was run once.

    Attributes:
        name: the session's name, without a seed where there are several.
        runs: in the order of their seeds.
    """

    name: str
    runs: tuple[Run, ...]

    @property
    def info(self) -> dict[str, Any]:
        """run.json of the first run."""
        return self.runs[0].info

    @property
    def classes(self) -> list[str]:
        """The classes, alphabetically."""
        return self.runs[0].classes

    @property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        return [_seed(run) for run in self.runs]

    @property
    def metrics(self) -> pd.DataFrame:
        """A row an epoch: means over the seeds."""
        if len(self.runs) == 1:
            return self.runs[0].metrics
        return self._all_metrics().mean().reset_index()

    @property
    def spread(self) -> pd.DataFrame | None:
        """A row an epoch: standard deviations over the seeds; None of one seed."""
        return self._all_metrics().std().reset_index() if len(self.runs) > 1 else None

    def over_seeds(self, value: Callable[[pd.DataFrame], float]) -> pd.Series:
        """A number of each run's metrics, by seed."""
        return pd.Series([value(run.metrics) for run in self.runs], index=self.seeds, dtype=float)

    def last(self, column: str) -> pd.Series:
        """A column's value after the last epoch of each run, by seed."""
        return self.over_seeds(lambda metrics: metrics[column].iloc[-1])

    def _all_metrics(self):
        return pd.concat([run.metrics for run in self.runs]).groupby("epoch")


def group_seeds(runs: Sequence[Run]) -> list[Session]:
    """Put the seeds of a session together: runs of equal settings whose names differ in the seed alone.

    A seed that is there twice, as ``slow`` and as ``slow-seed0``, counts once.
    """
    groups: dict[tuple[str, str], dict[int, Run]] = {}
    for run in runs:
        settings = {key: value for key, value in run.info["settings"].items() if key != "seed"}
        name = base_name(run.name, _seed(run))
        groups.setdefault((name, json.dumps(settings, sort_keys=True)), {}).setdefault(_seed(run), run)
    sessions = []
    for (name, _), group in groups.items():
        runs = tuple(group[seed] for seed in sorted(group))
        sessions.append(Session(name if len(runs) > 1 else runs[0].name, runs))
    return sessions


def _seed(run: Run) -> int:
    return run.info["settings"]["seed"]


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


def write_repeats(path: Path, accuracies: Sequence[float]) -> None:
    """Write repeats.csv: the last network's accuracies on the validation photos, augmented anew each time."""
    frame = pd.DataFrame({"repeat": range(len(accuracies)), "val_aug_acc": accuracies})
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def read_run(folder: Path) -> Run:
    """Read a session's folder.

    Raises:
        UserError: a file is missing, or is not what training writes for run.json's settings, classes and split.
    """
    info = read_info(folder)
    if info is None:
        raise UserError(f"There is no run in {folder}: run.json is missing. Run the session first.")
    metrics = _read_metrics(folder / "metrics.csv", info["settings"]["epochs"])
    predictions = _read_predictions(
        folder / "predictions.csv", list(info["dataset"]["classes"]), info["split"]["validation"]
    )
    return Run(folder.name, folder, info, metrics, predictions, _read_repeats(folder / "repeats.csv"))


def _read_repeats(path: Path) -> tuple[float, ...]:
    if not path.exists():  # a run of an earlier version
        return ()
    accuracies = _read_table(path, {"repeat": "float", "val_aug_acc": "float"})["val_aug_acc"]
    if not accuracies.between(0, 1).all():
        raise _damaged(path, "its accuracies must be fractions")
    return tuple(accuracies)


def read_runs(folder: Path, order: Sequence[str] = ()) -> list[Run]:
    """Read every finished session of ``folder``: those named in ``order``, without seeds, first, then by name.

    Raises:
        UserError: there is none.
    """
    folders = [path.parent for path in folder.glob("[!.]*/run.json")]
    runs = [read_run(path) for path in folders if is_finished(path)]
    if not runs:
        raise UserError(f"There is no finished session in {folder}. Run them first: python -m flowerlib run")
    place = {name: position for position, name in enumerate(order)}
    return sorted(
        runs, key=lambda run: (place.get(base_name(run.name, _seed(run)), len(place)), _seed(run), run.name)
    )


def read_info(folder: Path) -> dict[str, Any] | None:
    """Read run.json; None where there is none yet.

    Raises:
        UserError: it is damaged, or some of what is read from it is missing or not of its kind.
    """
    path = folder / "run.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if wrong := list(_wrong_parts(info, _INFO)):
            raise ValueError(f"missing, or not what it should be: {', '.join(wrong)}")
        info["settings"] = Experiment.from_settings(info["settings"]).settings()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError, UserError) as error:
        raise UserError(
            f"{path} can't be read ({brief(error)}). Remove the folder, or run again with --force."
        ) from error
    return info


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    info = read_info(folder)
    return info is not None and info["finished"]


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Write run.json."""
    write_text(folder / "run.json", json.dumps(info, indent=2) + "\n")


def confusion_matrix(predictions: pd.DataFrame) -> pd.DataFrame:
    """Count the validation photos by label (rows) and most probable class (columns)."""
    classes = list(predictions.columns[2:])
    predicted = predictions[classes].idxmax(axis="columns")
    return pd.crosstab(predictions["label"], predicted).reindex(index=classes, columns=classes, fill_value=0)


def _wrong_parts(value: Any, shape: Any, name: str = "") -> Iterator[str]:
    """The names of what doesn't fit ``shape``, such as dataset.classes."""
    if isinstance(shape, dict) and isinstance(value, dict):
        for key, part in shape.items():
            yield from _wrong_parts(value.get(key, ...), part, f"{name}.{key}".lstrip("."))
    elif isinstance(shape, dict) or not (isinstance(value, shape) if isinstance(shape, type) else shape(value)):
        yield name or "all of it"


def _read_metrics(path: Path, epochs: int) -> pd.DataFrame:
    metrics = _read_table(path, dict.fromkeys(METRICS_COLUMNS, "float"))
    in_order = len(metrics) == epochs and list(metrics["epoch"]) == list(range(epochs))
    if not in_order or not (metrics.abs() <= np.finfo(np.float32).max).all(axis=None):  # never true of nan
        raise _damaged(path, f"it must have finite numbers for each of {epochs} epochs")
    return metrics.astype({"epoch": "int"})


def _read_predictions(path: Path, classes: list[str], photos: int) -> pd.DataFrame:
    predictions = _read_table(path, {"photo": "str", "label": "str"} | dict.fromkeys(classes, "float"))
    probabilities = predictions[classes]
    sensible = predictions["label"].isin(classes).all() and ((probabilities >= 0) & (probabilities <= 1)).all(
        axis=None
    )
    if len(predictions) != photos or not sensible:
        raise _damaged(path, f"it must have a label and its probabilities for each of {photos} photos")
    return predictions


def _read_table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """Read a table of these columns, each of its type. Text stays text, also classes called 0, 1 or NA."""
    try:
        table = pd.read_csv(path, dtype=columns, keep_default_na=False)
    except (OSError, ValueError, OverflowError) as error:  # pandas' parser errors and bad UTF-8 are ValueErrors
        raise _damaged(path, brief(error)) from error
    if list(table.columns) != list(columns):
        raise _damaged(path, f"its columns must be {', '.join(columns)}")
    return table


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is not what the session wrote ({why}). Run the session again with --force.")
