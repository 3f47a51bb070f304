"""Secondary readings of the claims: other metrics and definitions, beside the primary measures, without verdicts.

Rows are made by pairs of sessions, for the published tables and for our runs alike; what a table lacks has no row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from flowerlib.report.claims import BATCH, CLAIMS, DEPTH, FULL, our_sessions, paper_sessions
from flowerlib.report.curves import (
    CONVERGED_WITHIN,
    convergence_epoch,
    falling_epoch,
    late_difference,
    mean_step,
    reaching_epoch,
    step_difference,
)
from flowerlib.report.measures import (
    AUGMENTED,
    CLEAN,
    CLOCK,
    CONVERGED_BY,
    TRAINING,
    from_epoch,
    late,
    share_draws,
    slowed,
)
from flowerlib.report.paper.published import FIRST, published_runs
from flowerlib.report.phrases import MISSING, decimal, interval, whole
from flowerlib.report.statistics import Estimate, NoEvidence, mean_variance, t_estimate
from flowerlib.runs import Run

# Multiply-adds of one picture of 224 px, in thousand millions; torchvision's tables of its weights ("GFLOPS").
MULTIPLY_ADDS = {"resnet18": 1.81, "resnet34": 3.66}

SLOW_EPOCH = 1.2  # times the median: the machine did something else

METRICS = {  # column: what it is, on which protocol, whether more is better
    "train_loss": ("training loss", TRAINING, False),
    "train_acc": ("training accuracy", TRAINING, True),
    "val_aug_loss": ("validation loss", AUGMENTED, False),
    "val_aug_acc": ("validation accuracy", AUGMENTED, True),
    "val_loss": ("validation loss", CLEAN, False),
    "val_acc": ("validation accuracy", CLEAN, True),
}


class Reading(NamedTuple):
    """A number, and its interval at 95 % where it has one."""

    reading: str
    protocol: str
    value: float
    low: float = math.nan
    high: float = math.nan


def readings_table(runs: Sequence[Run], seeds: Sequence[Run] = (), ablations: Sequence[Run] = ()) -> pd.DataFrame:
    """Every secondary reading, of the published tables (``published``) and of each session's first run (``ours``).

    Args:
        runs, seeds, ablations: see `flowerlib.report.claims.our_sessions`.

    Returns:
        A row a reading: ``key`` (of the claim), ``evidence``, ``reading``, ``protocol``, ``value``, ``low``,
        ``high`` (NaN where it has no interval). Of two sessions the reading is the second's minus the first's, if it
        says nothing else.
    """
    published = paper_sessions(published_runs())
    ours = {claim.key: our_sessions(claim, runs, seeds, ablations) for claim in CLAIMS}
    return pd.DataFrame(
        [
            {"key": key, "evidence": evidence, **reading._asdict()}
            for key, (names, read) in READINGS.items()
            for evidence, sessions in (("published", published), ("ours", ours[key]))
            for reading in _read(sessions, names, read)
        ],
        columns=["key", "evidence", *Reading._fields],
    )


def _read(sessions: Mapping[str, Mapping[int, Run]], names: Sequence[str], read: Callable) -> Iterator[Reading]:
    if all(name in sessions for name in names):
        shared = [seed for seed in sessions[names[0]] if all(seed in sessions[name] for name in names)]
        pick = [sessions[name][shared[0]] if shared else next(iter(sessions[name].values())) for name in names]
        try:
            yield from read(*pick)
        except NoEvidence:  # too few epochs
            return


def _columns(*runs: Run) -> list[str]:
    return [name for name in METRICS if all(name in run.metrics for run in runs)]


# ---- one session


def _convergence(run: Run) -> Iterator[Reading]:
    final = 2 * run.info.settings.lr_step
    late(run)
    yield Reading("epochs to convergence; the 10th epoch is 9 if the first is 0", AUGMENTED,
                  convergence_epoch(run.metrics["val_aug_acc"], final))  # fmt: skip
    for column in _losses(run):
        name, protocol, _ = METRICS[column]
        yield Reading(f"epochs to 90 % of the {name}'s fall", protocol, falling_epoch(run.metrics[column], final))
    yield Reading("epoch of the first drop of the learning rate", TRAINING, run.info.settings.lr_step)


def _losses(*runs: Run) -> list[str]:
    return [column for column in _columns(*runs) if column in ("train_loss", "val_aug_loss")]


def _fluctuation(run: Run) -> Iterator[Reading]:
    for column in _columns(run):
        name, protocol, _ = METRICS[column]
        values = from_epoch(run, CONVERGED_BY, column)
        yield Reading(f"mean step of the {name}", protocol, mean_step(values))
        if column.endswith("loss"):
            yield Reading(f"mean step of the {name}, as a share of its mean", protocol,
                          mean_step(values) / values.mean())  # fmt: skip
    if len(run.repeats) > 1:
        yield Reading("mean step of the fixed network's repeated evaluations", AUGMENTED, mean_step(run.repeats))


# ---- two sessions


def _speed(first: Run, second: Run) -> Iterator[Reading]:
    final = 2 * first.info.settings.lr_step
    late(first)
    for column in _columns(first, second):
        name, protocol, rises = METRICS[column]
        difference = (second.metrics[column] - first.metrics[column]).to_numpy()
        ahead = difference > 0 if rises else difference < 0
        yield Reading(f"epochs of {len(difference)} in which its {name} is better", protocol, int(ahead.sum()))
    for column in _losses(first, second):
        name, protocol, _ = METRICS[column]
        epochs = [falling_epoch(run.metrics[column], final) for run in (first, second)]
        yield Reading(f"epochs to 90 % of the {name}'s own fall", protocol, epochs[1] - epochs[0])
    level = late(first).mean() - CONVERGED_WITHIN
    epochs = [reaching_epoch(run.metrics["val_aug_acc"], level) for run in (first, second)]
    yield Reading(f"epochs to an accuracy of {decimal(level)}; none if it is never reached", AUGMENTED,
                  epochs[1] - epochs[0])  # fmt: skip


def _smoothness(first: Run, second: Run) -> Iterator[Reading]:
    for column in _columns(first, second):
        if column != "train_acc":  # the primary measure
            name, protocol, _ = METRICS[column]
            estimate = step_difference(slowed(first, column), slowed(second, column), share_draws(first, second))
            yield Reading(f"mean step of the {name}", protocol, *_numbers(estimate))


def _accuracy(first: Run, second: Run) -> Iterator[Reading]:
    for column in _columns(first, second):
        name, protocol, _ = METRICS[column]
        values = [late(run, column) for run in (first, second)]
        estimate = late_difference(*values, paired=share_draws(first, second))
        yield Reading(f"late mean of the {name}, given the photos", protocol, *_numbers(estimate))
    one, other = late(first), late(second)
    apart = other.max() < one.min() or other.min() > one.max()
    yield Reading("late accuracies apart: 1 if no epoch of one lies among the other's", AUGMENTED, int(apart))
    best = [run.metrics["val_aug_acc"].max() for run in (first, second)]
    yield Reading("best validation accuracy", AUGMENTED, best[1] - best[0])
    last = [run.metrics["val_aug_acc"].iloc[-5:].mean() for run in (first, second)]
    yield Reading("mean of the last five validation accuracies", AUGMENTED, last[1] - last[0])
    yield from _repeated(first, second)


def _repeated(first: Run, second: Run) -> Iterator[Reading]:
    """The last networks under the paper's protocol, by the repeats and, where it was kept, photo by photo."""
    repeats = [np.asarray(run.repeats) for run in (first, second)]
    if min(map(len, repeats)) > 2 and len(repeats[0]) == len(repeats[1]):
        paired = late_difference(*repeats, paired=share_draws(first, second))
        yield Reading("mean of the repeated evaluations, given the photos", AUGMENTED, *_numbers(paired))
    if (estimate := augmented_difference(first, second)) is not None:
        yield Reading("repeated evaluations, photo by photo", AUGMENTED, *_numbers(estimate))


def augmented_difference(first: Run, second: Run) -> Estimate | None:
    """The second's augmented accuracy minus the first's, photo by photo: t over the photos, whose shares are paired.

    Returns:
        The estimate; None where a run does not say of each photo how often it was right, or the photos differ.
    """
    if any(run.augmented is None or not run.repeats for run in (first, second)):
        return None
    shares = [run.augmented.set_index("photo")["correct"] / len(run.repeats) for run in (first, second)]
    if set(shares[0].index) != set(shares[1].index):
        return None
    difference = (shares[1] - shares[0]).to_numpy()
    return t_estimate(difference.mean(), [mean_variance(difference)])


def _numbers(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _time(first: Run, second: Run) -> Iterator[Reading]:
    adds = [_multiply_adds(run) for run in (first, second)]
    yield Reading("multiply-adds of a picture, as a ratio", CLOCK, adds[1] / adds[0])
    if all("train_seconds" in run.metrics for run in (first, second)):
        sums = [run.metrics["train_seconds"].sum() for run in (first, second)]
        yield Reading("training seconds in all, as a ratio", CLOCK, sums[1] / sums[0])
        for name, run in zip(("first", "second"), (first, second), strict=True):
            yield Reading(f"epochs of the {name} that took over {SLOW_EPOCH:g} times the median", CLOCK,
                          slow_epochs(run))  # fmt: skip


def _multiply_adds(run: Run) -> float:
    """Of one picture; as run.json says it, or from torchvision's tables at 224 px."""
    if run.info.model is not None:
        return run.info.model.multiply_adds
    return MULTIPLY_ADDS.get(run.info.settings.model, math.nan)


def slow_epochs(run: Run) -> int:
    """In how many epochs the machine seems to have done something else as well."""
    seconds = run.metrics["train_seconds"]
    return int((seconds > SLOW_EPOCH * seconds.median()).sum())


# ---- ablations


def _generalization(without: Run, full: Run) -> Iterator[Reading]:
    for name, run in (("without augmentation", without), ("full method", full)):
        if {"train_acc", "val_acc"} <= set(run.metrics):
            last = run.metrics.iloc[-1]
            yield Reading(f"{name}: training accuracy minus clean validation accuracy", CLEAN,
                          last["train_acc"] - last["val_acc"])  # fmt: skip
    if "val_loss" in without.metrics and "val_loss" in full.metrics:
        yield Reading("clean validation loss after the last epoch", CLEAN,
                      full.metrics["val_loss"].iloc[-1] - without.metrics["val_loss"].iloc[-1])  # fmt: skip


def _expenditure(random: Run, full: Run) -> Iterator[Reading]:
    final = random.metrics["val_acc"].iloc[-1]
    yield Reading("epochs in which transferred weights reach the others' last clean accuracy", CLEAN,
                  reaching_epoch(full.metrics["val_acc"], final))  # fmt: skip
    yield Reading("clean accuracy after the first epoch", CLEAN,
                  full.metrics["val_acc"].iloc[0] - random.metrics["val_acc"].iloc[0])  # fmt: skip


READINGS: dict[str, tuple[tuple[str, ...], Callable[..., Iterator[Reading]]]] = {
    "a": ((FIRST,), _convergence),
    "b": ((FIRST,), _fluctuation),
    "c": (BATCH, _speed),
    "d": (BATCH, _smoothness),
    "e1": (BATCH, _accuracy),
    "f": (DEPTH, _speed),
    "g": (DEPTH, _accuracy),
    "h": (DEPTH, _time),
    "i": (("without augmentation", FULL), _generalization),
    "j": (("random weights", FULL), _expenditure),
}


def shown_readings(table: pd.DataFrame) -> pd.DataFrame:
    """The readings of comparisons that the published tables have too, published beside ours, as they are printed."""
    chosen = table[table["key"].isin(["c", "e1", "f", "g"]) & table["protocol"].isin([TRAINING, AUGMENTED])]
    chosen = chosen[chosen["reading"].str.startswith(("epochs of", "epochs to 90", "late mean"))]
    wide = chosen.assign(
        reading=chosen["reading"].str.removesuffix(", given the photos").str.replace("its ", ""),
        text=[_shown(row) for row in chosen.itertuples()],
    ).pivot_table(
        index=["key", "reading", "protocol"], columns="evidence", values="text", aggfunc="first", sort=False
    )
    wide = wide.reindex(columns=["published", "ours"]).fillna(MISSING).reset_index()
    wide.columns = ["", "Reading", "Taken on", "Published", "Ours"]
    return wide


def _shown(row: tuple) -> str:
    if row.reading.startswith("epochs of"):
        return whole(row.value)
    if row.reading.startswith("epochs to"):
        return decimal(row.value, 1, signed=True)
    return interval(row.value, row.low, row.high, signed=True)
