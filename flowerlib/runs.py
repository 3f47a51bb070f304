"""A run's folder: the files that training writes and everything after it reads. Reading them needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowerlib.errors import UserError, one_line
from flowerlib.experiment import IMAGENET_MEAN, IMAGENET_STD, Experiment, Text, base_name
from flowerlib.files import write_text

LAST, BEFORE, BEST = "last.pt", "last.before.pt", "best.pt"  # see flowerlib.training.checkpoint

# metrics.csv keeps whatever a float32 loss can be
Loss = Annotated[float, Field(ge=0, le=float(np.finfo(np.float32).max))]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class EpochMetrics(_Record):
    """One row of metrics.csv.

    Attributes:
        epoch: from 0.
        learning_rate: in this epoch.
        train_loss, train_acc: on the augmented training photos, while the weights change.
        val_loss, val_acc: on the validation photos, clean (centre crop).
        val_aug_loss, val_aug_acc: on the validation photos, augmented as in training: the paper's protocol.
        train_seconds: wall time of the training pass.
        val_seconds: wall time of both validation passes.

    Losses are mean cross-entropies in nats; accuracies are fractions.
    """

    epoch: int = Field(ge=0)
    learning_rate: NonNegative
    train_loss: Loss
    train_acc: Fraction
    val_loss: Loss
    val_acc: Fraction
    val_aug_loss: Loss
    val_aug_acc: Fraction
    train_seconds: NonNegative
    val_seconds: NonNegative


METRICS_COLUMNS = tuple(EpochMetrics.model_fields)


# ---- run.json: what the session was given, and where it was computed


class Device(_Record):
    """What computed: ``cpu``, ``cuda`` or ``mps``, its name, the number of CPU threads, the operating system.

    ``deterministic``: whether CUDA was to use deterministic algorithms, where it has them; None on other devices.
    """

    type: Text
    name: Text
    threads: int
    system: Text = "unknown"
    deterministic: bool | None = None


class Computed(_Record):
    """Where epochs were computed: device, versions of Python and packages, git commit (None: not in a checkout)."""

    device: Device
    versions: dict[Text, Text]
    commit: Text | None


class EarlierEpochs(Computed):
    """Where the epochs before a resume were computed, and how many epochs were done by then."""

    epochs: int


class DatasetInfo(_Record):
    """The photos: name of the data set, photos per class, fingerprint, and those that were left out, with reasons."""

    name: Text
    photos: int
    classes: dict[Text, int]
    fingerprint: Text
    skipped: dict[str, str] = {}


class SplitInfo(_Record):
    """Photos on each side of the split, and the split's fingerprint."""

    train: int
    validation: int
    fingerprint: Text
    test: int = 0


class WeightsInfo(_Record):
    """Initial weights: where they come from, and what they were trained on, if that is known."""

    source: Literal["imagenet", "file", "none"]
    file: Text | None
    sha256: Text | None
    trained_on: Text | None = None


class ModelInfo(_Record):
    """Size of the network: parameters, those that are trained, and multiply-adds for one picture."""

    parameters: int
    trained: int
    multiply_adds: int


class InputInfo(_Record):
    """Mean and standard deviation, per channel, by which the network's input is standardized."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


class CalibrationInfo(_Record):
    """How best.pt's probabilities are calibrated, by the clean validation photos.

    Attributes:
        temperature: divides its logits.
        unsure_below: the probability that 99 % of its right answers reach.
        error_before, error_after: the expected calibration error without the temperature and with it.
    """

    temperature: float = Field(gt=0)
    unsure_below: Fraction
    error_before: Fraction
    error_after: Fraction


class HeldOutInfo(_Record):
    """best.pt on photos held out from every choice: how many, how many right, mean cross-entropy in nats."""

    photos: int
    correct: int
    loss: Loss


class RunInfo(Computed):
    """run.json. Format 1 has none of the fields from ``model`` on; ``input`` was ImageNet's then.

    Attributes:
        finished: whether the last epoch is done and everything is written.
        settings: the session's.
        seed: the one in the settings.
        dataset, split, weights: what decides the result, besides the settings.
        precision: dtype of the forward and backward pass, ``float32`` or ``bfloat16``.
        earlier: where the epochs before resumes were computed, if not where the last ones were.
        model, input: of the network.
        draws: version of the random draws.
        peak_memory: of the session's process, in MiB.
        calibration: of best.pt; None of an earlier version's.
        test: best.pt on the test photos, where some were set aside.
    """

    format: Literal[1, 2] = 1
    finished: bool
    settings: Experiment
    seed: int
    dataset: DatasetInfo
    split: SplitInfo
    weights: WeightsInfo
    precision: Text
    earlier: tuple[EarlierEpochs, ...] = ()
    model: ModelInfo | None = None
    input: InputInfo = InputInfo()
    draws: int = 1
    peak_memory: float | None = None
    calibration: CalibrationInfo | None = None
    test: HeldOutInfo | None = None

    @property
    def computed(self) -> Computed:
        """Where the latest epochs were computed."""
        return Computed(device=self.device, versions=self.versions, commit=self.commit)


NOT_INPUTS = {
    *("data", "skip_bad", "exclude", "cache", "split", "split_seed", "test", "folds", "fold"),  # fingerprints tell
    *("weights", "device", "precision", "repeats"),
}


def inputs(info: RunInfo) -> dict[str, Any]:
    """What decides a run's results, as flat values: settings, and the fingerprints of data, split and weights.

    How photos and weights were named, and what computed, is not part of it; nor is how often the last network is
    evaluated again.
    """
    return info.settings.model_dump(exclude=NOT_INPUTS) | {
        "data's fingerprint": info.dataset.fingerprint,
        "split's fingerprint": info.split.fingerprint,
        "weights' sha256": info.weights.sha256,
    }


def training_inputs(info: RunInfo) -> dict[str, Any]:
    """`inputs` without the number of epochs: the schedule does not depend on it, so more of them continue a run."""
    return {name: value for name, value in inputs(info).items() if name != "epochs"}


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the values that differ, ``epochs: 20 then, 2 now``; empty where none does."""
    return "; ".join(
        f"{one_line(key)}: {one_line(before.get(key))} then, {one_line(now.get(key))} now"
        for key in {**now, **before}
        if before.get(key) != now.get(key)
    )


# ---- a run


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
        augmented: by validation photo (``photo``), in how many of these evaluations it was right (``correct``, of
            ``len(repeats)``); None in a run of format 1, or of folds put together.
        folds: by validation photo, its fold; only of a cross-validation whose folds were put together.
    """

    name: str
    folder: Path
    info: RunInfo
    metrics: pd.DataFrame
    predictions: pd.DataFrame
    repeats: tuple[float, ...] = ()
    augmented: pd.DataFrame | None = None
    folds: Mapping[str, int] | None = None

    @property
    def sides(self) -> Mapping[str, int]:
        """Which validation photos stand on one side of the split: those of a fold, else all of them."""
        return self.folds or dict.fromkeys(self.predictions["photo"], 0)

    @property
    def classes(self) -> list[str]:
        """The classes, alphabetically: the order of the network's outputs."""
        return list(self.predictions.columns[2:])


def write_metrics(path: Path, history: Sequence[EpochMetrics]) -> None:
    """Write metrics.csv; floats keep all their digits, so that reading gives back the same numbers."""
    frame = pd.DataFrame([dict(row) for row in history], columns=METRICS_COLUMNS)
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


def write_augmented(path: Path, photos: Sequence[str], correct: Sequence[int]) -> None:
    """Write augmented.csv.

    Args:
        path: the file.
        photos: n relative paths, as in predictions.csv.
        correct: for each, in how many of the evaluations of repeats.csv it was right.
    """
    frame = pd.DataFrame({"photo": list(photos), "correct": np.asarray(correct, dtype=int)})
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def read_run(folder: Path) -> Run:
    """Read a session's folder.

    Raises:
        UserError: a file is missing, or is not what training writes for run.json's settings, classes and split.
    """
    info = read_info(folder)
    if info is None:
        raise UserError(f"There is no run in {folder}: run.json is missing. Run the session first.")
    metrics = _read_metrics(folder / "metrics.csv", info.settings.epochs)
    predictions = _read_predictions(folder / "predictions.csv", list(info.dataset.classes), info.split.validation)
    repeats = _read_repeats(folder / "repeats.csv")
    augmented = _read_augmented(folder / "augmented.csv", predictions["photo"], repeats)
    return Run(folder.name, folder, info, metrics, predictions, repeats, augmented)


def _read_repeats(path: Path) -> tuple[float, ...]:
    if not path.exists():  # a run of an earlier version
        return ()
    accuracies = _read_table(path, {"repeat": int, "val_aug_acc": float})["val_aug_acc"]
    if not accuracies.between(0, 1).all():
        raise _damaged(path, "its accuracies must be fractions")
    return tuple(accuracies)


def _read_augmented(path: Path, photos: pd.Series, repeats: Sequence[float]) -> pd.DataFrame | None:
    if not path.exists():  # a run of format 1
        return None
    table = _read_table(path, {"photo": str, "correct": int})
    if not table["photo"].equals(photos) or not table["correct"].between(0, len(repeats)).all():
        raise _damaged(path, "it must have the photos of predictions.csv, and counts up to the number of repeats")
    if repeats and abs(table["correct"].mean() - sum(repeats)) > 1e-4:
        raise _damaged(path, "its counts must have the mean of repeats.csv")
    return table


def no_session(folder: Path) -> UserError:
    """The error for a folder without a finished session."""
    return UserError(
        f"There is no finished session in {folder}. Choose a folder that has some with --runs (make: RUNS=…), or run "
        "some first: .venv/bin/flowerlib run"
    )


def read_runs(folder: Path, order: Sequence[str] = ()) -> list[Run]:
    """Read every finished session of ``folder``: those named in ``order``, without seeds, first, then by name.

    Raises:
        UserError: there is none.
    """
    folders = [path.parent for path in folder.glob("[!.]*/run.json")]
    runs = [read_run(path) for path in folders if is_finished(path)]
    if not runs:
        raise no_session(folder)
    place = {name: number for number, name in enumerate(order)}

    def position(run: Run) -> tuple[int, int, str]:
        seed = run.info.settings.seed
        return place.get(base_name(run.name, run.info.settings), len(place)), seed, run.name

    return sorted(runs, key=position)


def read_info(folder: Path) -> RunInfo | None:
    """Read run.json; None where there is none yet.

    Raises:
        UserError: it is damaged, or some of what is read from it is missing or not of its kind.
    """
    path = folder / "run.json"
    try:
        return RunInfo.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError, UserError) as error:
        raise UserError(
            f"{path} can't be read ({one_line(error)}). Remove the folder, or run again with --force."
        ) from error


def refuse_other_inputs(folder: Path, info: RunInfo) -> None:
    """Refuse a folder that holds a finished run of other inputs than ``info``'s, or of more epochs.

    Raises:
        UserError: it does; each difference is named.
    """
    before = read_info(folder)
    if before is None or not (before.finished or before.test):  # what has begun is compared with its checkpoint
        return
    differences = describe_differences(training_inputs(before), training_inputs(info))
    if before.test and before.settings.epochs < info.settings.epochs and not differences:
        raise UserError(
            f"{folder} holds a session that was scored on its test photos: training it longer would let them "
            "decide the number of epochs. Use --force to begin again with the new number of epochs, or --runs FOLDER "
            "to keep both."
        )
    if before.settings.epochs > info.settings.epochs:
        differences = differences or f"epochs: {before.settings.epochs} then, {info.settings.epochs} now"
    if differences:
        raise UserError(
            f"{folder} holds a session with other settings, photos, split or weights ({differences}). Nothing was "
            "run. Use --force to replace it, or "
            "--runs FOLDER to keep both; in a notebook, another session or run_dir."
        )


def is_unequal(classes: Mapping[str, int]) -> bool:
    """Whether accuracy alone would hide a small class: the largest has more than twice the photos of the smallest."""
    return max(classes.values()) > 2 * min(classes.values())


def epochs_done(folder: Path) -> int:
    """How many epochs a folder's metrics.csv has; 0 where it can't be read."""
    try:
        return len(pd.read_csv(folder / "metrics.csv"))
    except (OSError, ValueError):  # none yet, or damaged
        return 0


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    info = read_info(folder)
    return info is not None and info.finished


def is_up_to_date(folder: Path, experiment: Experiment) -> bool:
    """Whether nothing is left to do: a finished run of as many epochs, in the precision that was asked for, with its
    tables and with enough repeats.
    """
    info = read_info(folder)
    if info is None or not info.finished or info.settings.epochs != experiment.epochs:
        return False
    if experiment.precision not in ("auto", info.precision):  # training says so, and refuses
        return False
    names = ["metrics.csv", "predictions.csv", *(["augmented.csv"] if info.format > 1 else [])]
    tables = all((folder / name).exists() for name in names)
    return tables and len(_read_repeats(folder / "repeats.csv")) >= experiment.repeats


def write_info(folder: Path, info: RunInfo) -> None:
    """Write run.json."""
    write_text(folder / "run.json", info.model_dump_json(indent=2) + "\n")


def _read_metrics(path: Path, epochs: int) -> pd.DataFrame:
    metrics = _read_table(path, {name: field.annotation for name, field in EpochMetrics.model_fields.items()})
    if list(metrics["epoch"]) != list(range(epochs)):
        raise _damaged(path, f"it must have a row for each of {epochs} epochs")
    try:
        for row in metrics.to_dict("records"):
            EpochMetrics(**row)
    except ValidationError as error:
        raise _damaged(path, one_line(error)) from error
    return metrics


def _read_predictions(path: Path, classes: list[str], photos: int) -> pd.DataFrame:
    predictions = _read_table(path, {"photo": str, "label": str} | dict.fromkeys(classes, float))
    probabilities = predictions[classes]
    sensible = predictions["label"].isin(classes).all() and ((probabilities >= 0) & (probabilities <= 1)).all(
        axis=None
    )
    if len(predictions) != photos or not sensible:
        raise _damaged(path, f"it must have a label and its probabilities for each of {photos} photos")
    return predictions


def _read_table(path: Path, columns: Mapping[str, type]) -> pd.DataFrame:
    """Read a table of these columns, each of its type. Text stays text, also classes called 0, 1 or NA."""
    try:
        table = pd.read_csv(path, dtype=columns, keep_default_na=False)
    except (OSError, ValueError, OverflowError) as error:  # pandas' parser errors and bad UTF-8 are ValueErrors
        raise _damaged(path, one_line(error)) from error
    if list(table.columns) != list(columns):
        raise _damaged(path, f"its columns must be {', '.join(columns)}")
    return table


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is not what the session wrote ({why}). Run the session again with --force.")
