"""The measures by which the paper's claims are judged: a number of a run, and an interval for it.

Curves and late accuracies are taken under augmented validation, the paper's; two networks of ours are compared
photo by photo, on the clean one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import isotonic_regression
from statsmodels.stats.proportion import confint_proportions_2indep

from flowerlib.report.statistics import (
    ALPHA,
    CONVERGED_WITHIN,
    RESAMPLES,
    SEED,
    TAILS,
    Interval,
    NoEvidence,
    accuracy,
    compare_predictions,
    convergence_epoch,
    holding,
    mean_step,
    mean_variance,
    side_by_side,
    t_interval,
)
from flowerlib.runs import Run

# Fewer values than three give no interval worth the name: at two, the t quantile is 12.7.
MIN_SEEDS = 3

# The paper: "after the 10th epoch".
CONVERGED_BY = 10

# Steps that share an epoch are alike in size: of white noise, whose steps correlate by -1/2, the sizes correlate
# by .224, and the variance of their mean is 1 + 2 · .224 times that of independent ones. Of two simulated curves of
# 13 epochs the intervals of the difference then hold the truth in 94 to 96 % of cases; without it in 90 %, and
# block bootstraps in 84 to 87 %.
STEP_VARIANCE = 1.45

AUGMENTED = "augmented validation"
CLEAN = "clean validation"
CLOCK = "training time"


@dataclass(frozen=True)
class Measure:
    """A number of one network, and how sure its value is, or its difference between two networks.

    Attributes:
        definition: in words.
        protocol: which validation it is taken on, or the clock.
        of: the number of one run.
        alone: the interval of one run's number, or of the second's minus the first's, without other seeds, and
            what else is to be said of it.
        form: format of the value.
        scale: applied to number and interval alike, for those taken as logarithms.
        check: refuses runs that can't be compared; takes rows of runs.
        besides: variances and degrees of freedom that add to that between seeds; takes rows of runs.
    """

    definition: str
    protocol: str
    of: Callable[[Run], float]
    alone: Callable[..., tuple[float, float, str]]
    form: str = ".4f"
    scale: Callable[[float], float] = float
    check: Callable[[Sequence[Sequence[Run]]], None] = lambda rows: None
    besides: Callable[[Sequence[Sequence[Run]]], list[tuple[float, float]]] = lambda rows: []


# ---- a measure of sessions


def evaluate(measure: Measure, groups: Sequence[Mapping[int, Run]], names: Sequence[str]) -> tuple[Interval, str]:
    """A measure of one session or the difference of two, over the seeds that they share if these are enough.

    Args:
        measure: what is measured.
        groups: one session or two, each its runs by seed.
        names: of the sessions, for the note.

    Returns:
        The value with its interval, and what it rests on.

    Raises:
        NoEvidence: the tables lack what the measure needs, or can't be compared.
    """
    rows = _rows(groups)
    numbers = np.array([[measure.of(run) for run in row] for row in rows])
    measure.check(rows)
    effects = _effect(list(numbers.T))
    if len(rows) >= MIN_SEEDS:
        value = effects.mean()
        low, high = t_interval(value, [mean_variance(effects), *measure.besides(rows)])
        said = [f"t interval over {len(rows)} seeds" + (" and the pictures" if measure.besides(rows) else "")]
    else:
        numbers, value = numbers[:1], effects[0]
        low, high, detail = measure.alone(*rows[0])
        said = [detail, _scope(rows, [measure.scale(effect) for effect in effects], measure.form)]
    means = [
        f"{name} {measure.scale(mean):{measure.form}}" for name, mean in zip(names, numbers.mean(0), strict=True)
    ]
    interval = holding(*(float(measure.scale(number)) for number in (value, low, high)))
    return interval, "; ".join([", ".join(means), *said]) + "."


def _rows(groups: Sequence[Mapping[int, Run]]) -> list[tuple[Run, ...]]:
    """The sessions' runs side by side: a row a shared seed, or one row of their first runs if they share none."""
    shared = [seed for seed in groups[0] if all(seed in group for group in groups)]
    return [tuple(group[seed] for group in groups) for seed in shared] or [
        tuple(next(iter(group.values())) for group in groups)
    ]


def _effect(numbers: Sequence[np.ndarray | float]) -> np.ndarray | float:
    """One session's numbers, or the second's minus the first's."""
    return numbers[0] if len(numbers) == 1 else numbers[1] - numbers[0]


def _scope(rows: Sequence[Sequence[Run]], effects: Sequence[float], form: str) -> str:
    """Say of what a result without enough seeds speaks."""
    scope = "it speaks of this run" if len(rows[0]) == 1 else "it speaks of these two runs"
    if len(rows) > 1:
        values = ", ".join(f"{effect:{form}}" for effect in effects)
        scope += f", of seed {rows[0][0].info.settings.seed} (the seeds give {values})"
    return f"{scope}, not of the method"


# ---- how the measures are taken


def _validation(run: Run, start: int) -> np.ndarray:
    """Augmented validation accuracies from an epoch on, which must be two at least."""
    values = run.metrics.loc[run.metrics["epoch"] >= start, "val_aug_acc"].to_numpy(dtype=float)
    if len(values) < 2:
        raise NoEvidence(f"{run.name} has fewer than two epochs from epoch {start} on.")
    return values


def _converged(run: Run) -> np.ndarray:
    return _validation(run, CONVERGED_BY)


def _slowed(run: Run) -> np.ndarray:
    return _validation(run, run.info.settings.lr_step)


def _late(run: Run) -> np.ndarray:
    return _validation(run, 2 * run.info.settings.lr_step)


def _photos(run: Run) -> int:
    return run.info.split.validation


def _convergence(run: Run) -> float:
    _late(run)  # there must be such epochs
    return convergence_epoch(run.metrics["val_aug_acc"], 2 * run.info.settings.lr_step)


def _convergence_alone(*runs: Run) -> tuple[float, float, str]:
    """Percentiles of curves simulated from the fitted ones.

    The noise is that of drawing each epoch's photos anew. The real photos stay the same and only their
    augmentation changes, which scatters less: the interval is rather too wide. Simulated with the full noise, it
    holds the truth in 93 to 98 % of cases for one curve, in 99 % for a difference.
    """
    draws = [_simulated_convergence(run, np.random.default_rng([SEED, place])) for place, run in enumerate(runs)]
    low, high = np.quantile(_effect(draws), TAILS)
    return low, high, "interval: curves simulated with the binomial noise of the validation pictures"


def _simulated_convergence(run: Run, random: np.random.Generator) -> np.ndarray:
    rising = isotonic_regression(run.metrics["val_aug_acc"]).x
    curves = random.binomial(_photos(run), rising, (RESAMPLES, len(rising))) / _photos(run)
    return np.array([convergence_epoch(curve, 2 * run.info.settings.lr_step) for curve in curves])


def _step_alone(window: Callable[[Run], np.ndarray], *runs: Run) -> tuple[float, float, str]:
    """The t interval of mean steps, or of the difference of two (Welch)."""
    steps = [np.abs(np.diff(window(run))) for run in runs]
    parts = [mean_variance(values, STEP_VARIANCE) for values in steps]
    value = _effect([values.mean() for values in steps])
    return *t_interval(value, parts), "t interval over the steps"


def _late_accuracy_alone(first: Run, second: Run) -> tuple[float, float, str]:
    """Newcombe's interval of two independent shares, each of one evaluation's photos.

    The late epochs share their photos: their mean scatters less than one evaluation, and the interval is rather
    too wide. That both sessions had the same photos is not known, so nothing is paired.
    """
    late = [_late(run) for run in (first, second)]
    photos = [_photos(run) for run in (first, second)]
    correct = [values.mean() * number for values, number in zip(late, photos, strict=True)]
    low, high = confint_proportions_2indep(correct[1], photos[1], correct[0], photos[0], "newcomb", alpha=ALPHA)
    scatter = " and ".join(f"{values.std(ddof=1):.4f}" for values in late)
    return low, high, f"sd of the late epochs {scatter}; interval: Newcombe's, of unpaired pictures"


def _final_accuracy(run: Run) -> float:
    if run.predictions.empty:
        raise NoEvidence(f"{run.name} has no predictions.")
    return accuracy(run.predictions).value


def _final_accuracy_alone(first: Run, second: Run) -> tuple[float, float, str]:
    result = compare_predictions(first.predictions, second.predictions)
    return (
        result.difference.low,
        result.difference.high,
        f"only the first has {result.only_first} of {result.photos} pictures right, only the second "
        f"{result.only_second}; McNemar's exact p {result.p_value:.3g}; interval: bootstrap over pictures",
    )


def _same_photos(rows: Sequence[Sequence[Run]]) -> None:
    if len({frozenset(run.predictions["photo"]) for row in rows for run in row}) > 1:
        raise NoEvidence("The sessions were validated on different pictures.")


def _photo_variance(rows: Sequence[Sequence[Run]]) -> list[tuple[float, float]]:
    """The variance that other validation photos would add to that of other seeds.

    It holds a part of the seeds' own variance: the interval is rather too wide.
    """
    tables = [side_by_side(first.predictions, second.predictions).astype(float) for first, second in rows]
    mean = sum(table["second"] - table["first"] for table in tables) / len(tables)
    return [mean_variance(mean.to_numpy())]


def _log_seconds(run: Run) -> float:
    if "train_seconds" not in run.metrics:
        raise NoEvidence(f"{run.name} records no training times.")
    return float(np.log(run.metrics["train_seconds"]).mean())


def _log_seconds_alone(first: Run, second: Run) -> tuple[float, float, str]:
    logs = [np.log(run.metrics["train_seconds"].to_numpy()) for run in (first, second)]
    interval = t_interval(logs[1].mean() - logs[0].mean(), [mean_variance(values) for values in logs])
    return *interval, "t interval over the epochs"


def _same_machine(rows: Sequence[Sequence[Run]]) -> None:
    machines = {
        (part.device, run.info.precision) for row in rows for run in row for part in (run.info, *run.info.earlier)
    }
    if len(machines) > 1:
        raise NoEvidence("The sessions ran on different devices or in different precision: times can't be compared.")


# ---- the measures

CONVERGENCE = Measure(
    definition=f"Epoch, counted from 0, at which the curve, made to rise only, comes to {CONVERGED_WITHIN:g} below "
    "its mean after the second drop of the learning rate",
    protocol=AUGMENTED,
    of=_convergence,
    alone=_convergence_alone,
    form="z.1f",
)
FLUCTUATION = Measure(
    definition=f"Mean absolute change of accuracy from one epoch to the next, from epoch {CONVERGED_BY} on",
    protocol=AUGMENTED,
    of=lambda run: mean_step(_converged(run)),
    alone=partial(_step_alone, _converged),
)
ROUGHNESS = Measure(
    definition="Mean absolute change of accuracy from one epoch to the next, after the first drop of the learning "
    "rate",
    protocol=AUGMENTED,
    of=lambda run: mean_step(_slowed(run)),
    alone=partial(_step_alone, _slowed),
)
LATE_ACCURACY = Measure(
    definition="Mean accuracy after the second drop of the learning rate",
    protocol=AUGMENTED,
    of=lambda run: float(_late(run).mean()),
    alone=_late_accuracy_alone,
)
FINAL_ACCURACY = Measure(
    definition="Accuracy after the last epoch, compared picture by picture",
    protocol=CLEAN,
    of=_final_accuracy,
    alone=_final_accuracy_alone,
    check=_same_photos,
    besides=_photo_variance,
)
TRAINING_TIME = Measure(
    definition="Geometric mean of an epoch's training seconds, as a ratio",
    protocol=CLOCK,
    of=_log_seconds,
    alone=_log_seconds_alone,
    form=".2f",
    scale=math.exp,
    check=_same_machine,
)
