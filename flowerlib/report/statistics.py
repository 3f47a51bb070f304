"""Intervals, and statistics of predictions. They know tables, neither networks nor the paper; curves are in `curves`.

Every interval is at 95 % and covers at least about that, which the tests simulate. Two validations are never mixed:
``augmented`` is the paper's, whose curves it describes; ``clean`` is that of predictions.csv, where two networks can
be compared photo by photo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from flowerlib.calibration import BINS, bin_of

ALPHA = 0.05
TAILS = (ALPHA / 2, 1 - ALPHA / 2)
LEAST_P = 1e-6  # no approximation here carries further


class Interval(NamedTuple):
    """A value and its interval at 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A value, its interval at 95 %, and the test that belongs to it.

    Attributes:
        value, low, high: the number and its interval.
        p: the two-sided p-value of any other number; below .05 where the interval leaves it out.
    """

    value: float
    low: float
    high: float
    p: Callable[[float], float]


class NoEvidence(Exception):
    """The tables can't decide a claim.

    Args:
        reason: why, in a short phrase.
        decides: what would.
    """

    def __init__(self, reason: str, decides: str = ""):
        super().__init__(reason)
        self.decides = decides


# ---- intervals


def wilson(correct: int, photos: int) -> Interval:
    """The share ``correct / photos`` with Wilson's score interval; not a number of no photos.

    Source: Wilson (1927); statsmodels ``proportion_confint(method="wilson")``.
    """
    if not photos:
        return Interval(math.nan, math.nan, math.nan)
    low, high = proportion_confint(correct, photos, ALPHA, method="wilson")
    return including(correct / photos, low, high)  # of none or all right, a limit may be off by a rounding error


def t_estimate(value: float, parts: Sequence[tuple[float, float]]) -> Estimate:
    """Student's interval and test of a value whose variance is a sum.

    Args:
        value: the estimate.
        parts: each part's variance (of the estimate) and degrees of freedom; theirs are joined by Welch and
            Satterthwaite. Two samples' parts give Welch's t interval of the difference of their means.
    """
    variances, freedoms = np.transpose(parts)
    total = variances.sum()
    if not total > 0:
        return Estimate(value, value, value, lambda edge: float(value == edge))
    freedom, deviation = total**2 / (variances**2 / freedoms).sum(), math.sqrt(total)
    half = stats.t.ppf(TAILS[1], freedom) * deviation
    return Estimate(
        float(value),
        float(value - half),
        float(value + half),
        lambda edge: float(2 * stats.t.sf(abs(value - edge) / deviation, freedom)),
    )


def drawn_estimate(value: float, draws: np.ndarray, tails: tuple[float, float] = TAILS) -> Estimate:
    """The interval between two points of simulated values, and the test by their shares.

    Args:
        value: the estimate.
        draws: the simulated values.
        tails: the shares of the draws below the lower and below the upper limit; other than 2.5 % and 97.5 % where
            the estimate is known to be biased.
    """
    low, high = np.quantile(draws, tails)

    def p(edge: float) -> float:
        below, above = (
            (int(count) + 1) / (len(draws) + 1) for count in ((draws <= edge).sum(), (draws >= edge).sum())
        )
        return min(1.0, ALPHA * below / tails[0], ALPHA * above / (1 - tails[1]))

    return Estimate(*including(value, low, high), p)


def inverted_estimate(value: float, limits: Callable[[float], tuple[float, float]]) -> Estimate:
    """An interval whose test is its inversion.

    Args:
        value: the estimate.
        limits: the interval at any level, by the share it leaves out.
    """

    def p(edge: float) -> float:
        def beyond(log_alpha: float) -> float:
            low, high = limits(math.exp(log_alpha))
            return edge - (high if edge > value else low)

        if edge == value:
            return 1.0
        least, most = math.log(LEAST_P), math.log(1 - 1e-9)
        return math.exp(brentq(beyond, least, most)) if beyond(least) * beyond(most) < 0 else LEAST_P

    return Estimate(float(value), *map(float, limits(ALPHA)), p)


def mean_variance(values: np.ndarray, factor: float = 1.0) -> tuple[float, float]:
    """The variance of the mean of ``values`` and its degrees of freedom."""
    freedom = len(values) - 1
    if freedom < 1:
        raise NoEvidence("too few values for an interval", "more epochs")
    return factor * float(np.var(values, ddof=1)) / len(values), freedom


def including(value: float, low: float, high: float) -> Interval:
    """An interval that holds its value: a resampled one of a biased number may not."""
    return Interval(float(value), float(min(low, value)), float(max(high, value)))


# ---- one network's predictions


def outcomes(predictions: pd.DataFrame) -> pd.DataFrame:
    """What became of each validation photo.

    Args:
        predictions: as `flowerlib.runs.Run` has them.

    Returns:
        In the same order ``photo``, ``label``, ``predicted`` (the most probable class), ``confidence`` (its
        probability), ``correct``.
    """
    probabilities = predictions.iloc[:, 2:].to_numpy(dtype=float)
    classes = predictions.columns[2:]
    rows = np.arange(len(predictions))
    predicted = probabilities.argmax(axis=1)
    return predictions.iloc[:, :2].assign(
        predicted=classes[predicted],
        confidence=probabilities[rows, predicted],
        correct=lambda table: table["predicted"] == table["label"],
    )


def accuracy(predictions: pd.DataFrame) -> Interval:
    """Top-1 accuracy with its Wilson interval."""
    correct = outcomes(predictions)["correct"]
    return wilson(correct.sum(), len(correct))


def confusion_matrix(predictions: pd.DataFrame) -> pd.DataFrame:
    """Count the validation photos by label (rows) and most probable class (columns)."""
    classes = list(predictions.columns[2:])
    predicted = predictions[classes].idxmax(axis="columns")
    return pd.crosstab(predictions["label"], predicted).reindex(index=classes, columns=classes, fill_value=0)


def class_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of each class, with Wilson intervals.

    Precision is the share of right ones among the photos predicted as the class, recall among those labelled so.

    Returns:
        A row a class (index ``class``): ``labelled``, ``predicted``, ``correct`` (photos), ``precision``,
        ``precision_low``, ``precision_high``, ``recall``, ``recall_low``, ``recall_high``.
    """
    matrix = confusion_matrix(predictions)
    table = pd.DataFrame(
        {"labelled": matrix.sum(axis="columns"), "predicted": matrix.sum(), "correct": np.diag(matrix)}
    ).rename_axis("class")
    for name, total in {"precision": "predicted", "recall": "labelled"}.items():
        shares = [wilson(*row) for row in zip(table["correct"], table[total], strict=True)]
        table[[name, f"{name}_low", f"{name}_high"]] = shares
    return table


def reliability_bins(predictions: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Confidence against accuracy, of the most probable class, in bins of equal width.

    Args:
        predictions: as `flowerlib.runs.Run` has them.
        bins: number of bins; the m-th holds the confidences in ((m - 1) / bins, m / bins].

    Returns:
        A row a bin: its edges ``from`` and ``to``, ``photos``, mean ``confidence``, and ``accuracy`` with
        ``accuracy_low`` and ``accuracy_high`` (Wilson); NaN in an empty bin.
    """
    table = outcomes(predictions)
    edges = np.linspace(0, 1, bins + 1)
    groups = table.groupby(bin_of(table["confidence"], bins))
    result = pd.DataFrame({"from": edges[:-1], "to": edges[1:]})
    result["photos"] = groups.size().reindex(result.index, fill_value=0)
    result["confidence"] = groups["confidence"].mean().reindex(result.index)
    correct = groups["correct"].sum().reindex(result.index, fill_value=0)
    shares = [wilson(*row) for row in zip(correct, result["photos"], strict=True)]
    result[["accuracy", "accuracy_low", "accuracy_high"]] = shares
    return result


def confident_mistakes(predictions: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """The ``count`` wrong photos of highest confidence, the highest first: rows of `outcomes`."""
    table = outcomes(predictions)
    return table[~table["correct"]].sort_values("confidence", ascending=False, kind="stable").head(count)


def unsure_hits(predictions: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """The ``count`` right photos of lowest confidence, the lowest first: rows of `outcomes`."""
    table = outcomes(predictions)
    return table[table["correct"]].sort_values("confidence", kind="stable").head(count)


def accuracy_without(predictions: pd.DataFrame, photos: Collection[str]) -> pd.DataFrame:
    """Accuracy on all photos, without some, and on those alone.

    Args:
        predictions: as `flowerlib.runs.Run` has them.
        photos: relative paths; those that are not among the predictions (training photos) don't count.

    Returns:
        Rows ``all``, ``without``, ``alone``: ``photos``, ``correct``, ``accuracy``, ``low``, ``high`` (Wilson).
    """
    table = outcomes(predictions)
    chosen = table["photo"].isin(set(photos))
    parts = {"all": table["correct"], "without": table["correct"][~chosen], "alone": table["correct"][chosen]}
    rows = [(len(part), part.sum(), *wilson(part.sum(), len(part))) for part in parts.values()]
    return pd.DataFrame(rows, index=list(parts), columns=["photos", "correct", "accuracy", "low", "high"])


# ---- two networks, photo by photo


class Comparison(NamedTuple):
    """Two networks on the same photos.

    Attributes:
        photos: in both tables.
        only_first, only_second: photos that only this network has right.
        difference: the second's accuracy minus the first's, with Newcombe's interval; its p is McNemar's for 0.
        p_value: of McNemar's exact test.
    """

    photos: int
    only_first: int
    only_second: int
    difference: Estimate
    p_value: float


def compare_predictions(first: pd.DataFrame, second: pd.DataFrame) -> Comparison:
    """Compare two networks on the photos that both tables hold, by `paired_limits` and McNemar's exact test."""
    pairs = side_by_side(first, second)
    one, other = pairs["first"], pairs["second"]
    cells = tuple(int(cell.sum()) for cell in (one & other, one & ~other, ~one & other, ~one & ~other))
    p_value = float(mcnemar([cells[:2], cells[2:]], exact=True).pvalue)
    estimate = inverted_estimate((cells[2] - cells[1]) / sum(cells), partial(paired_limits, cells))
    difference = replace(estimate, p=lambda edge: estimate.p(edge) if edge else p_value)
    return Comparison(sum(cells), cells[1], cells[2], difference, p_value)


def paired_limits(cells: tuple[int, int, int, int], alpha: float = ALPHA) -> tuple[float, float]:
    """Newcombe's score interval of the second share minus the first, of the same photos.

    Source: Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired
    data", Statistics in Medicine 17 (1998), method 10: Wilson's limits of both shares, joined by their correlation.

    Args:
        cells: how many photos both have right, only the first, only the second, neither.
        alpha: the share of cases that the interval leaves out.
    """
    both, only_first, only_second, neither = cells
    photos = sum(cells)
    rights = both + only_second, both + only_first
    (second, low2, high2), (first, low1, high1) = (
        (right / photos, *proportion_confint(right, photos, alpha, method="wilson")) for right in rights
    )
    margins = math.prod((rights[0], photos - rights[0], rights[1], photos - rights[1]))
    excess = both * neither - only_first * only_second
    excess = max(excess - photos / 2, 0) if excess > 0 else excess  # continuity correction
    phi = excess / math.sqrt(margins) if margins else 0.0
    below = (second - low2) ** 2 + (high1 - first) ** 2 - 2 * phi * (second - low2) * (high1 - first)
    above = (high2 - second) ** 2 + (first - low1) ** 2 - 2 * phi * (high2 - second) * (first - low1)
    difference = second - first
    return difference - math.sqrt(below), difference + math.sqrt(above)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values of a family of tests; NaN stays NaN and does not count.

    Source: Holm (1979); statsmodels ``multipletests(method="holm")``.
    """
    values = np.asarray(p_values, dtype=float)
    known = ~np.isnan(values)
    adjusted = np.full(len(values), math.nan)
    if known.any():
        adjusted[known] = multipletests(values[known], method="holm")[1]
    return adjusted


def side_by_side(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Whether each network has a photo right: ``first`` and ``second``, for the photos of both."""
    right = [outcomes(table).set_index("photo")["correct"] for table in (first, second)]
    return pd.concat(right, axis=1, join="inner", keys=["first", "second"])
