"""Secondary readings of the claims: other metrics and definitions, beside the primary measures, without verdicts.

Rows are made by pairs of sessions, for the published tables and for our runs alike; what a table lacks has no row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from flowerlib.report.claims import BATCH, CLAIMS, DEPTH, our_sessions, paper_sessions
from flowerlib.report.curves import (
    falling_epoch,
    late_difference,
)
from flowerlib.report.measures import (
    AUGMENTED,
    CLEAN,
    TRAINING,
    late,
    share_draws,
    side_by_side_runs,
)
from flowerlib.report.paper.published import published_runs
from flowerlib.report.phrases import MISSING, decimal, interval, whole
from flowerlib.report.statistics import Estimate, NoEvidence, mean_variance, t_estimate
from flowerlib.runs import Run

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
        try:
            yield from read(*side_by_side_runs([sessions[name] for name in names])[0])
        except NoEvidence:  # too few epochs
            return


def _columns(*runs: Run) -> list[str]:
    return [name for name in METRICS if all(name in run.metrics for run in runs)]


def _speed(first: Run, second: Run) -> Iterator[Reading]:
    final = 2 * first.info.settings.lr_step
    late(first)
    for column in _columns(first, second):
        name, protocol, rises = METRICS[column]
        difference = (second.metrics[column] - first.metrics[column]).to_numpy()
        ahead = difference > 0 if rises else difference < 0
        yield Reading(f"epochs of {len(difference)} in which its {name} is better", protocol, int(ahead.sum()))
    for column in ("train_loss", "val_aug_loss"):
        name, protocol, _ = METRICS[column]
        epochs = [falling_epoch(run.metrics[column], final) for run in (first, second)]
        yield Reading(f"epochs to 90 % of the {name}'s own fall", protocol, epochs[1] - epochs[0])


def _accuracy(first: Run, second: Run) -> Iterator[Reading]:
    for column in _columns(first, second):
        name, protocol, _ = METRICS[column]
        values = [late(run, column) for run in (first, second)]
        estimate = late_difference(*values, paired=share_draws(first, second))
        yield Reading(f"late mean of the {name}, given the photos", protocol, *_numbers(estimate))
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


READINGS: dict[str, tuple[tuple[str, str], Callable[[Run, Run], Iterator[Reading]]]] = {
    "c": (BATCH, _speed),
    "e1": (BATCH, _accuracy),
    "f": (DEPTH, _speed),
    "g": (DEPTH, _accuracy),
}


def shown_readings(table: pd.DataFrame) -> pd.DataFrame:
    """The readings under the paper's protocol, published beside ours, as they are printed."""
    chosen = table[table["protocol"].isin([TRAINING, AUGMENTED])]
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
