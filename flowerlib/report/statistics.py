"""Statistics of metric tables. They know tables, not networks.

Every interval is at 95 %. Two validations are never mixed: ``augmented`` is the paper's, whose curves it
describes; ``clean`` is that of predictions.csv, where two networks can be compared photo by photo.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import isotonic_regression
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from flowerlib.runs import confusion_matrix

ALPHA = 0.05
TAILS = (ALPHA / 2, 1 - ALPHA / 2)
RESAMPLES = 10_000
SEED = 0  # of every resampling: the same tables give the same intervals

# Two points: half the width of the interval of one accuracy of .92 on 570 photos (±.022). What moves by less
# can't be told from a converged accuracy, and its fluctuation is small.
CONVERGED_WITHIN = 0.02

BINS = 15  # of the calibration error, as in Guo et al. (2017)


class Interval(NamedTuple):
    """A value and its interval at 95 %."""

    value: float
    low: float
    high: float


class NoEvidence(Exception):
    """The tables can't decide a claim; the message says why."""


# ---- intervals


def wilson(correct: int, photos: int) -> Interval:
    """The share ``correct / photos`` with Wilson's score interval; not a number of no photos.

    Source: Wilson (1927); statsmodels ``proportion_confint(method="wilson")``.
    """
    if not photos:
        return Interval(math.nan, math.nan, math.nan)
    low, high = proportion_confint(correct, photos, ALPHA, method="wilson")
    return holding(correct / photos, low, high)  # of none or all right, a limit may be off by a rounding error


def t_interval(value: float, parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Student's interval of a value whose variance is a sum.

    Args:
        value: the estimate.
        parts: each part's variance (of the estimate) and degrees of freedom; theirs are joined by Welch and
            Satterthwaite. Two samples' parts give Welch's t interval of the difference of their means.
    """
    variances, freedoms = np.transpose(parts)
    total = variances.sum()
    if not total > 0:
        return value, value
    freedom = total**2 / (variances**2 / freedoms).sum()
    half = stats.t.ppf(TAILS[1], freedom) * math.sqrt(total)
    return value - half, value + half


def mean_variance(values: np.ndarray, factor: float = 1.0) -> tuple[float, float]:
    """The variance of the mean of ``values`` and its degrees of freedom."""
    freedom = len(values) - 1
    if freedom < 1:
        raise NoEvidence("There are too few epochs for an interval.")
    return factor * float(np.var(values, ddof=1)) / len(values), freedom


def holding(value: float, low: float, high: float) -> Interval:
    """An interval that holds its value: a resampled one of a biased number may not."""
    return Interval(float(value), float(min(low, value)), float(max(high, value)))


# ---- one network's predictions


def outcomes(predictions: pd.DataFrame) -> pd.DataFrame:
    """What became of each validation photo.

    Args:
        predictions: as `flowerlib.runs.Run` has them.

    Returns:
        In the same order ``photo``, ``label``, ``predicted`` (the most probable class), ``confidence`` (its
        probability), ``label_probability``, ``correct``.
    """
    probabilities = predictions.iloc[:, 2:].to_numpy(dtype=float)
    classes = predictions.columns[2:]
    rows = np.arange(len(predictions))
    predicted = probabilities.argmax(axis=1)
    return predictions.iloc[:, :2].assign(
        predicted=classes[predicted],
        confidence=probabilities[rows, predicted],
        label_probability=probabilities[rows, classes.get_indexer(predictions["label"])],
        correct=lambda table: table["predicted"] == table["label"],
    )


def accuracy(predictions: pd.DataFrame) -> Interval:
    """Top-1 accuracy with its Wilson interval."""
    correct = outcomes(predictions)["correct"]
    return wilson(correct.sum(), len(correct))


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
    groups = table.groupby(_bin(table["confidence"], bins))
    result = pd.DataFrame({"from": edges[:-1], "to": edges[1:]})
    result["photos"] = groups.size().reindex(result.index, fill_value=0)
    result["confidence"] = groups["confidence"].mean().reindex(result.index)
    correct = groups["correct"].sum().reindex(result.index, fill_value=0)
    shares = [wilson(*row) for row in zip(correct, result["photos"], strict=True)]
    result[["accuracy", "accuracy_low", "accuracy_high"]] = shares
    return result


def calibration_error(predictions: pd.DataFrame, bins: int = BINS) -> Interval:
    """The expected calibration error (ECE) of the most probable class, with a bootstrap interval over photos.

    ECE is the sum over the bins of `reliability_bins` of (the bin's share of the photos) · |accuracy - mean
    confidence|, as in Guo et al., "On Calibration of Modern Neural Networks" (2017).

    A sum of absolute values is too high for few photos (by .016 for 570 and a perfect network, simulated), and
    that of resampled photos higher by as much again. So the interval is the basic bootstrap's, which turns that
    round, from 0 up, widened to hold the estimate. Simulated, it holds the truth in about 90 % of cases where
    the error is .03 and more, in 75 % where it is 0; a percentile interval never does there.
    """
    table = outcomes(predictions)
    gaps = table["confidence"].to_numpy() - table["correct"].to_numpy()
    places = _bin(table["confidence"], bins)

    def error(rows: np.ndarray) -> float:
        return float(np.abs(np.bincount(places[rows], weights=gaps[rows])).sum() / len(rows))

    photos = len(table)
    random = np.random.default_rng(SEED)
    value = error(np.arange(photos))
    low, high = np.quantile([error(random.integers(0, photos, photos)) for _ in range(RESAMPLES)], TAILS)
    return holding(value, max(2 * value - high, 0.0), 2 * value - low)


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


def _bin(confidence: pd.Series, bins: int) -> np.ndarray:
    return np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)


# ---- two networks, photo by photo


class Comparison(NamedTuple):
    """Two networks on the same photos.

    Attributes:
        photos: in both tables.
        only_first, only_second: photos that only this network has right.
        difference: the second's accuracy minus the first's, with its interval.
        p_value: of McNemar's exact test.
    """

    photos: int
    only_first: int
    only_second: int
    difference: Interval
    p_value: float


def compare_predictions(first: pd.DataFrame, second: pd.DataFrame) -> Comparison:
    """Compare two networks on the photos that both tables hold.

    McNemar's exact test is statsmodels'. The interval of the difference is a percentile bootstrap over photos;
    only the photos that one network alone has right move it, so their two counts are resampled, as parts of a
    multinomial. Of few such photos a bootstrap is too sure (four to none exclude 0, at a p of .125): where the
    exact test finds no difference, the interval is widened to hold 0.

    Raises:
        ValueError: the tables have no photo in common.
    """
    both = side_by_side(first, second)
    if both.empty:
        raise ValueError("the two tables of predictions have no photo in common")
    photos = len(both)
    counts = pd.crosstab(both["first"], both["second"]).reindex([True, False], axis=0, fill_value=0)
    counts = counts.reindex([True, False], axis=1, fill_value=0).to_numpy()
    only_first, only_second = int(counts[0, 1]), int(counts[1, 0])
    p_value = float(mcnemar(counts, exact=True).pvalue)

    random = np.random.default_rng(SEED)
    shares = np.array([only_first, only_second, photos - only_first - only_second]) / photos
    drawn = random.multinomial(photos, shares, size=RESAMPLES)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / photos, TAILS)
    if p_value >= ALPHA:
        low, high = min(low, 0.0), max(high, 0.0)
    difference = holding((only_second - only_first) / photos, low, high)
    return Comparison(photos, only_first, only_second, difference, p_value)


def side_by_side(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Whether each network has a photo right: ``first`` and ``second``, for the photos of both."""
    right = [outcomes(table).set_index("photo")["correct"] for table in (first, second)]
    return pd.concat(right, axis=1, join="inner", keys=["first", "second"])


# ---- one curve


def convergence_epoch(accuracies: Sequence[float], final: int) -> float:
    """When a curve comes within `CONVERGED_WITHIN` of its final mean, in epochs.

    The curve is first made to rise only (isotonic regression, the least-squares fit among rising curves), or
    else one lucky early epoch would count; between two epochs it is a straight line.

    Args:
        accuracies: one an epoch, from epoch 0.
        final: the final mean is that of the epochs from this one on.
    """
    accuracies = np.asarray(accuracies, dtype=float)
    rising = isotonic_regression(accuracies).x
    aim = accuracies[final:].mean() - CONVERGED_WITHIN
    after = int(np.argmax(rising >= aim))
    if after == 0:
        return 0.0
    before = rising[after - 1]
    return after - 1 + float((aim - before) / (rising[after] - before))


def mean_step(accuracies: Sequence[float]) -> float:
    """Mean absolute difference from one epoch to the next: how rough a curve is."""
    return float(np.abs(np.diff(accuracies)).mean())


def scatter(accuracies: Sequence[float], photos: int) -> dict[str, float]:
    """How far accuracies of a network that no longer changes scatter.

    Args:
        accuracies: two or more, each measured on as many photos.
        photos: on how many.

    Returns:
        ``evaluations``, ``mean``, ``sd`` with ``sd_low`` and ``sd_high`` (chi-square, for independent normal values),
        ``mean_step`` (mean absolute difference from one to the next), ``binomial_sd`` (for new photos each time: an
        upper limit for the same photos under new augmentations).
    """
    values = np.asarray(accuracies, dtype=float)
    freedom, mean, sd = len(values) - 1, values.mean(), values.std(ddof=1)
    high, low = sd * np.sqrt(freedom / stats.chi2.ppf(TAILS, freedom))
    return {
        "evaluations": len(values),
        "mean": mean,
        "sd": sd,
        "sd_low": low,
        "sd_high": high,
        "mean_step": mean_step(values),
        "binomial_sd": math.sqrt(mean * (1 - mean) / photos),
    }


# ---- texts


def format_interval(value: float, low: float, high: float, form: str = ".3f") -> str:
    """Return ``value [low, high]``, each in the format ``form``; a dash of no value."""
    return "–" if math.isnan(value) else f"{value:{form}} [{low:{form}}, {high:{form}}]"


def format_mean_sd(mean: float, sd: float, decimals: int = 3) -> str:
    """Return ``mean ± sd``: the spread to one digit, to two if the first is a 1, and the mean to the same place.

    Args:
        mean: the mean.
        sd: its standard deviation; left out where it is NaN.
        decimals: of the mean where no spread says how many it carries (NaN or 0).
    """
    if math.isnan(mean):
        return "–"
    if sd < 1e-9 or math.isnan(sd):  # equal values may differ by a rounding error
        return f"{mean:.{decimals}f}" + ("" if math.isnan(sd) else f" ± {0:.{decimals}f}")
    first, exponent = f"{sd:.1e}"[0], int(f"{sd:.1e}".split("e")[1])
    places = max((first == "1") - exponent, 0)
    return f"{mean:.{places}f} ± {sd:.{places}f}"
