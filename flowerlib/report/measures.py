"""The measures by which claims are judged: a number of a run, and its interval.

Curves and late accuracies are taken under augmented validation, the paper's; two networks of ours are compared
photo by photo, on the clean one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flowerlib.report.curves import (
    CONVERGED_WITHIN,
    CONVERGENCE_TAILS,
    binomial_deviation,
    convergence_epoch,
    mean_step,
    median_parts,
    simulated_convergence,
    step_difference,
    step_ratio,
    unrelated_difference,
)
from flowerlib.report.phrases import decimal, p_text
from flowerlib.report.statistics import (
    TAILS,
    Estimate,
    NoEvidence,
    accuracy,
    compare_predictions,
    drawn_estimate,
    mean_variance,
    side_by_side,
    t_estimate,
)
from flowerlib.runs import Run

# Fewer values than three give no interval worth the name: at two, the t quantile is 12.7.
MIN_SEEDS = 3

# The paper: "after the 10th epoch", which is epoch 9 or 10, counted from 0.
CONVERGED_BY = 10

# Fixed networks of ours, evaluated 20 times on the same photos, scatter by .80, .85 and .94 of the binomial standard
# deviation (report/results/paper; tests/report/test_reference.py). For runs that were not evaluated again and again.
NOISE_SHARE = 0.85
MIN_REPEATS = 10  # to take a run's own scatter instead

MIN_TIMES = 5  # epochs, for an interval of a median

AUGMENTED = "augmented validation"
TRAINING = "training"
CLEAN = "clean validation"
CLOCK = "training time"

# The settings that decide a photo's random changes in an epoch.
DRAWN_BY = (
    "seed", "epochs", "image_size", "random_crop", "flip", "rotation", "brightness", "contrast", "saturation", "hue",
    "translation",
)  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """A number of one network, and how sure its value is, or its difference between two networks.

    Attributes:
        definition: in words.
        label: short, for an axis.
        protocol: which validation it is taken on, or the clock.
        of: the number of one run.
        without_seeds: the estimate of one run's number, or of the second's minus the first's, without other seeds,
            and what it rests on, in a short phrase.
        places: decimals of the number as it is told.
        logarithm: whether numbers are logarithms, and the value is their exponential.
        more: what narrows the interval of one seed, ``seeds`` or ``validation photos``.
        check: refuses runs that can't be compared; takes rows of runs.
        besides: variances and degrees of freedom that add to that between seeds; takes rows of runs.
    """

    definition: str
    label: str
    protocol: str
    of: Callable[[Run], float]
    without_seeds: Callable[..., tuple[Estimate, str]]
    places: int = 3
    logarithm: bool = False
    more: str = "seeds"
    check: Callable[[Sequence[Sequence[Run]]], None] = lambda rows: None
    besides: Callable[[Sequence[Sequence[Run]]], list[tuple[float, float]]] = lambda rows: []

    def scaled(self, number: float) -> float:
        """A number or difference as it is told."""
        return math.exp(number) if self.logarithm else float(number)

    def unscaled(self, number: float) -> float:
        """A told number as it is measured."""
        return math.log(number) if self.logarithm and math.isfinite(number) else float(number)

    def told(self, number: float) -> str:
        """A number as a text."""
        return decimal(self.scaled(number), self.places)


class Evaluation(NamedTuple):
    """A measure of sessions.

    Attributes:
        estimate: on the scale on which it is measured, which may be logarithmic.
        seeds: how many stand behind it; fewer than `MIN_SEEDS` count as the first.
        photos: of the validation.
        note: each session's number, and what the interval rests on.
    """

    estimate: Estimate
    seeds: int
    photos: int
    note: str


# ---- a measure of sessions


def evaluate(measure: Measure, groups: Sequence[Mapping[int, Run]], names: Sequence[str]) -> Evaluation:
    """A measure of one session or the difference of two, over the seeds that they share if these are enough.

    Args:
        measure: what is measured.
        groups: one session or two, each its runs by seed.
        names: of the sessions, for the note.

    Raises:
        NoEvidence: the tables lack what the measure needs, or can't be compared.
    """
    rows = side_by_side_runs(groups)
    numbers = np.array([[measure.of(run) for run in row] for row in rows])
    measure.check(rows)
    effects = _effect(list(numbers.T))
    if len(rows) >= MIN_SEEDS:
        besides = measure.besides(rows)
        estimate = t_estimate(effects.mean(), [mean_variance(effects), *besides])
        said = [f"t interval over {len(rows)} seeds" + (" and the photos" if besides else "")]
    else:
        numbers = numbers[:1]
        estimate, detail = measure.without_seeds(*rows[0])
        said = [detail]
        if len(rows) > 1:
            values = ", ".join(measure.told(effect) for effect in effects)
            said.append(f"seed {rows[0][0].info.settings.seed} (the seeds give {values})")
    means = (f"{name} {measure.told(mean)}" for name, mean in zip(names, numbers.mean(0), strict=True))
    return Evaluation(estimate, len(rows), _photos(rows[0][0]), "; ".join([", ".join(means), *said]))


def side_by_side_runs(groups: Sequence[Mapping[int, Run]]) -> list[tuple[Run, ...]]:
    """The sessions' runs side by side: a row a shared seed, or one row of their first runs if they share none."""
    shared = [seed for seed in groups[0] if all(seed in group for group in groups)]
    return [tuple(group[seed] for group in groups) for seed in shared] or [
        tuple(next(iter(group.values())) for group in groups)
    ]


def _effect(numbers: Sequence[np.ndarray | float]) -> np.ndarray | float:
    """One session's numbers, or the second's minus the first's."""
    return numbers[0] if len(numbers) == 1 else numbers[1] - numbers[0]


# ---- what two runs share, and how their validation scatters


def share_draws(first: Run, second: Run) -> bool:
    """Whether the same random changes of the same photos are in both runs, so that they can be paired by epoch."""
    one, other = first.info, second.info
    same = all(getattr(one.settings, name) == getattr(other.settings, name) for name in DRAWN_BY)
    return same and (one.split.fingerprint, one.draws) == (other.split.fingerprint, other.draws)


def noise_share(run: Run) -> float:
    """The standard deviation of the run's augmented accuracy on the same photos, as a share of the binomial one.

    Its own, of the repeated evaluations of its last network, where there are `MIN_REPEATS`; else `NOISE_SHARE`.
    """
    repeats = np.asarray(run.repeats)
    if len(repeats) < MIN_REPEATS or not 0 < repeats.mean() < 1 or not repeats.std() > 0:
        return NOISE_SHARE
    return float(repeats.std(ddof=1) / binomial_deviation(repeats.mean(), _photos(run)))


def noise_correlation(first: Run, second: Run) -> float:
    """How far the noise of two runs' augmented accuracies goes together in one epoch; 0 without shared draws."""
    pairs = [np.asarray(run.repeats) for run in (first, second)]
    known = min(map(len, pairs)) >= MIN_REPEATS and len(pairs[0]) == len(pairs[1])
    if not known or not share_draws(first, second) or not all(values.std() > 0 for values in pairs):
        return 0.0
    return float(np.clip(np.corrcoef(*pairs)[0, 1], 0, 1))


def _photos(run: Run) -> int:
    return run.info.split.validation


# ---- how the measures are taken


def from_epoch(run: Run, start: int, column: str = "val_aug_acc") -> np.ndarray:
    """A column from an epoch on, which must be two epochs at least."""
    values = run.metrics.loc[run.metrics["epoch"] >= start, column].to_numpy(dtype=float)
    if len(values) < 2:
        raise NoEvidence(f"fewer than two epochs from epoch {start} on", "more epochs")
    return values


def slowed(run: Run, column: str = "val_aug_acc") -> np.ndarray:
    """A column after the first drop of the learning rate."""
    return from_epoch(run, run.info.settings.lr_step, column)


def late(run: Run, column: str = "val_aug_acc") -> np.ndarray:
    """A column after the second drop of the learning rate, when the network hardly changes."""
    return from_epoch(run, 2 * run.info.settings.lr_step, column)


def _convergence(run: Run) -> float:
    late(run)  # there must be such epochs
    return convergence_epoch(run.metrics["val_aug_acc"], 2 * run.info.settings.lr_step)


def _convergence_without_seeds(*runs: Run) -> tuple[Estimate, str]:
    curves = [run.metrics["val_aug_acc"].to_numpy(dtype=float) for run in runs]
    finals = [2 * run.info.settings.lr_step for run in runs]
    deviations = [
        noise_share(run) * binomial_deviation(np.clip(curve, 0, 1), _photos(run))
        for run, curve in zip(runs, curves, strict=True)
    ]
    correlation = noise_correlation(*runs) if len(runs) == 2 else 0.0
    draws = _effect(simulated_convergence(curves, finals, deviations, correlation))
    shares = " and ".join(decimal(noise_share(run), 2) for run in runs)
    said = f"curves simulated with {shares} of the binomial scatter"
    if correlation:
        said += f", paired by epoch (correlation {decimal(correlation, 2)})"
    tails = CONVERGENCE_TAILS if len(runs) == 1 else TAILS
    return drawn_estimate(_effect([_convergence(run) for run in runs]), draws, tails), said


def _fluctuation_without_seeds(run: Run) -> tuple[Estimate, str]:
    curve = from_epoch(run, CONVERGED_BY)
    if len(run.repeats) >= MIN_REPEATS:
        said = f"mean step {decimal(mean_step(curve), 4)}; the fixed network's {decimal(mean_step(run.repeats), 4)}"
        return step_ratio(curve, run.repeats), said
    noise = float(NOISE_SHARE * binomial_deviation(curve.mean(), _photos(run)))
    said = f"mean step {decimal(mean_step(curve), 4)}; scatter taken as {decimal(NOISE_SHARE, 2)} of the binomial"
    return step_ratio(curve, noise), said


def _roughness_without_seeds(first: Run, second: Run) -> tuple[Estimate, str]:
    paired = share_draws(first, second)
    said = "t interval over the steps" + (", paired by epoch" if paired else "")
    return step_difference(slowed(first, "train_acc"), slowed(second, "train_acc"), paired), said


def _late_without_seeds(first: Run, second: Run) -> tuple[Estimate, str]:
    runs = (first, second)
    estimate = unrelated_difference([late(run) for run in runs], [_photos(run) for run in runs])
    return estimate, "Newcombe's interval, of unrelated validation photos"


def _final_accuracy_without_seeds(first: Run, second: Run) -> tuple[Estimate, str]:
    result = compare_predictions(first.predictions, second.predictions)
    said = (
        f"only the first right on {result.only_first} of {result.photos} photos, only the second on "
        f"{result.only_second}; McNemar's exact p {p_text(result.p_value)}; Newcombe's paired interval"
    )
    return result.difference, said


def _same_photos(rows: Sequence[Sequence[Run]]) -> None:
    if len({frozenset(run.predictions["photo"]) for row in rows for run in row}) > 1:
        raise NoEvidence("validated on different photos", "sessions of one split")


def _photo_variance(rows: Sequence[Sequence[Run]]) -> list[tuple[float, float]]:
    """The variance that other validation photos would add to that of other seeds.

    It holds a part of the seeds' own variance: the interval is rather too wide.
    """
    tables = [side_by_side(first.predictions, second.predictions).astype(float) for first, second in rows]
    mean = sum(table["second"] - table["first"] for table in tables) / len(tables)
    return [mean_variance(mean.to_numpy())]


def _log_seconds(run: Run) -> float:
    if "train_seconds" not in run.metrics:
        raise NoEvidence("no training times", "training times")
    return float(np.log(np.median(run.metrics["train_seconds"])))


def _log_seconds_without_seeds(first: Run, second: Run) -> tuple[Estimate, str]:
    logs = [np.log(run.metrics["train_seconds"].to_numpy()) for run in (first, second)]
    if min(map(len, logs)) < MIN_TIMES:
        raise NoEvidence(f"fewer than {MIN_TIMES} epochs", "more epochs")
    parts = [median_parts(values)[1] for values in logs]
    return t_estimate(_log_seconds(second) - _log_seconds(first), parts), "Price and Bonett's interval of medians"


def _same_machine(rows: Sequence[Sequence[Run]]) -> None:
    machines = {
        (part.device, run.info.precision) for row in rows for run in row for part in (run.info, *run.info.earlier)
    }
    if len(machines) > 1:
        raise NoEvidence("different devices or precision", "both sessions on one machine")


# ---- the measures

CONVERGENCE = Measure(
    definition="Epoch, counted from 0, at which the isotonic fit of the accuracy comes within "
    f"{decimal(CONVERGED_WITHIN, 2)} of the curve's own final mean",
    label="Epochs to convergence",
    protocol=AUGMENTED,
    of=_convergence,
    without_seeds=_convergence_without_seeds,
    places=1,
)
FLUCTUATION = Measure(
    definition=f"Mean step of the accuracy from epoch {CONVERGED_BY} on, over that of a fixed network evaluated "
    "again and again",
    label="Step, over the protocol's own",
    protocol=AUGMENTED,
    of=lambda run: _fluctuation_without_seeds(run)[0].value,
    without_seeds=_fluctuation_without_seeds,
    places=2,
    logarithm=True,
)
# Of the four metrics the training accuracy: measured on four times the photos, it has the least noise of its own.
ROUGHNESS = Measure(
    definition="Mean step of the training accuracy after the first drop of the learning rate",
    label="Step of training accuracy",
    protocol=TRAINING,
    of=lambda run: mean_step(slowed(run, "train_acc")),
    without_seeds=_roughness_without_seeds,
    places=4,
)
LATE_ACCURACY = Measure(
    definition="Mean accuracy after the second drop of the learning rate",
    label="Late accuracy, augmented",
    protocol=AUGMENTED,
    of=lambda run: float(late(run).mean()),
    without_seeds=_late_without_seeds,
    more="validation photos",
)
FINAL_ACCURACY = Measure(
    definition="Accuracy after the last epoch, compared photo by photo",
    label="Accuracy, clean",
    protocol=CLEAN,
    of=lambda run: accuracy(run.predictions).value,
    without_seeds=_final_accuracy_without_seeds,
    more="validation photos",
    check=_same_photos,
    besides=_photo_variance,
)
TRAINING_TIME = Measure(
    definition="Median of an epoch's training seconds, as a ratio",
    label="Ratio of training times",
    protocol=CLOCK,
    of=_log_seconds,
    without_seeds=_log_seconds_without_seeds,
    places=2,
    logarithm=True,
    check=_same_machine,
)
