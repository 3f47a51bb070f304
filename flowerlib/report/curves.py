"""Statistics of curves over the epochs: when they converge, how far they step, where they end.

They know arrays, neither networks nor the paper. Epochs count from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import stats
from scipy.optimize import isotonic_regression
from statsmodels.stats.proportion import confint_proportions_2indep

from flowerlib.report.statistics import (
    Estimate,
    NoEvidence,
    drawn_estimate,
    inverted_estimate,
    mean_variance,
    t_estimate,
)

# Two points: half the width of the interval of one accuracy of .92 on 570 photos (±.022). What moves by less
# can't be told from a converged accuracy.
CONVERGED_WITHIN = 0.02

# Steps that share an epoch are alike in size: of white noise, whose steps correlate by -1/2, the sizes correlate
# by .224, and the variance of their mean is 1 + 2 · .224 times that of independent ones (simulated in the tests).
STEP_VARIANCE = 1.45

# The mean size of a step of white noise, in its standard deviations: the mean of |a - b| is 2 / sqrt(pi).
NOISE_STEP = 2 / math.sqrt(math.pi)

CURVES = 10_000  # simulated for an interval
SEED = 0  # of the simulation: the same tables give the same intervals

# Noise delays the convergence of a curve, and of those simulated from its fit once more. The limits that hold the
# truth in 95 % of cases and more are these points of the simulated epochs; with the 2.5 % point below, the lower
# limit of a steep curve misses in 5 to 12 % (simulated in the tests). A difference of two curves needs no allowance.
CONVERGENCE_TAILS = (0.005, 0.975)


# ---- convergence


def convergence_epoch(accuracies: Sequence[float], final: int) -> float:
    """When a curve comes within `CONVERGED_WITHIN` of its final mean, in epochs.

    It is the isotonic fit that does (the least-squares fit among rising curves), or else one lucky early epoch
    would count; between two epochs it is a straight line.

    Args:
        accuracies: one an epoch, from epoch 0.
        final: the final mean is that of the epochs from this one on.
    """
    accuracies = np.asarray(accuracies, dtype=float)
    return reaching_epoch(accuracies, accuracies[final:].mean() - CONVERGED_WITHIN)


def reaching_epoch(values: Sequence[float], level: float) -> float:
    """When the isotonic fit of a rising curve reaches ``level``, in epochs; NaN if it never does."""
    rising = isotonic_regression(np.asarray(values, dtype=float)).x
    reached = rising >= level
    if not reached.any():
        return math.nan
    after = int(np.argmax(reached))
    if after == 0:
        return 0.0
    before = rising[after - 1]
    return after - 1 + float((level - before) / (rising[after] - before))


def falling_epoch(losses: Sequence[float], final: int) -> float:
    """When the isotonic fit of a loss has done 90 % of its fall from epoch 0 to its final mean, in epochs."""
    losses = np.asarray(losses, dtype=float)
    aim = losses[0] - 0.9 * (losses[0] - losses[final:].mean())
    return reaching_epoch(-losses, -aim)


def simulated_convergence(
    curves: Sequence[np.ndarray], finals: Sequence[int], deviations: Sequence[np.ndarray], correlation: float = 0.0
) -> list[np.ndarray]:
    """Convergence epochs of curves simulated from the isotonic fits.

    Args:
        curves: the accuracies of one session or two, an epoch each.
        finals: by session, the first of the epochs that make its final mean.
        deviations: by session, the standard deviation of the validation's noise, an epoch each.
        correlation: of two sessions' noise in the same epoch, where they share their random draws.

    Returns:
        By session `CURVES` epochs.
    """
    random = np.random.default_rng(SEED)
    shared = random.standard_normal((CURVES, max(map(len, curves))))
    result = []
    for curve, final, deviation in zip(curves, finals, deviations, strict=True):
        own = random.standard_normal((CURVES, len(curve)))
        noise = math.sqrt(correlation) * shared[:, : len(curve)] + math.sqrt(1 - correlation) * own
        fit = isotonic_regression(np.asarray(curve, dtype=float)).x
        result.append(np.array([convergence_epoch(each, final) for each in fit + deviation * noise]))
    return result


# ---- steps


def mean_step(values: Sequence[float]) -> float:
    """Mean absolute difference from one epoch to the next: how rough a curve is."""
    return float(np.abs(np.diff(values)).mean())


def step_difference(first: Sequence[float], second: Sequence[float], paired: bool = False) -> Estimate:
    """The second curve's mean step minus the first's.

    Args:
        first, second: values by epoch.
        paired: whether the sessions share their random draws: their steps are then compared epoch by epoch.
    """
    steps = [np.abs(np.diff(values)) for values in (first, second)]
    value = steps[1].mean() - steps[0].mean()
    if paired and len(steps[0]) == len(steps[1]):
        steps = [steps[1] - steps[0]]
    return t_estimate(value, [mean_variance(each, STEP_VARIANCE) for each in steps])


def step_ratio(curve: Sequence[float], reference: Sequence[float] | float) -> Estimate:
    """The logarithm of a curve's mean step over that of white noise.

    Of normal white noise the ratio's distribution depends on the numbers of values alone. It is simulated, so that
    the interval covers what it says for curves of few epochs.

    Args:
        curve: two values or more.
        reference: values of the noise, or its known standard deviation.
    """
    known = isinstance(reference, int | float)
    noise = NOISE_STEP * reference if known else mean_step(reference)
    step = mean_step(curve)
    if not step > 0 or not noise > 0:
        raise NoEvidence("no scatter to compare", "more epochs or repeated evaluations")
    value = math.log(step / noise)
    return drawn_estimate(value, value - _step_pivots(len(curve), 0 if known else len(reference)))


@lru_cache
def _step_pivots(values: int, reference: int) -> np.ndarray:
    """The logarithm of white noise's mean step over that of other white noise, or over its expectation (0)."""
    random = np.random.default_rng(SEED)
    steps = [
        np.abs(np.diff(random.standard_normal((20_000, number)), axis=1)).mean(axis=1)
        for number in (values, reference)
        if number
    ]
    return np.log(steps[0]) - (np.log(steps[1]) if reference else math.log(NOISE_STEP))


def scatter(accuracies: Sequence[float], photos: int) -> dict[str, float]:
    """How far accuracies of a network that no longer changes scatter.

    Args:
        accuracies: two or more, each measured on as many photos.
        photos: on how many.

    Returns:
        ``evaluations``, ``mean``, ``sd``, ``mean_step`` (mean absolute difference from one to the next),
        ``binomial_sd`` (for new photos each time: an upper limit for the same photos under new augmentations).
    """
    values = np.asarray(accuracies, dtype=float)
    mean = values.mean()
    return {
        "evaluations": len(values),
        "mean": mean,
        "sd": values.std(ddof=1),
        "mean_step": mean_step(values),
        "binomial_sd": binomial_deviation(mean, photos),
    }


def binomial_deviation(share: np.ndarray | float, photos: int) -> np.ndarray | float:
    """The standard deviation of the share of new photos that are right."""
    return np.sqrt(share * (1 - share) / photos)


# ---- late levels


def late_difference(first: Sequence[float], second: Sequence[float], paired: bool = False) -> Estimate:
    """The second session's late mean minus the first's, by t over the late epochs: given the validation photos.

    Args:
        first, second: values of the late epochs, in which the networks hardly change.
        paired: whether the sessions share their random draws: they are then compared epoch by epoch.
    """
    late = [np.asarray(values, dtype=float) for values in (first, second)]
    value = late[1].mean() - late[0].mean()
    if paired and len(late[0]) == len(late[1]):
        late = [late[1] - late[0]]
    return t_estimate(value, [mean_variance(each) for each in late])


def effective_photos(late: Sequence[Sequence[float]], photos: Sequence[int]) -> list[float]:
    """How many photos, each evaluated once, tell as much as each session's late epochs.

    One evaluation of new photos has the binomial variance. A part of it, estimated by the epochs' variance, is that
    of the random changes of the same photos, and k epochs have 1/k of that part; the part of the photos themselves
    remains. The part is pooled over the sessions, at most all of it.

    Args:
        late: by session, accuracies of late epochs, in which the network hardly changes.
        photos: by session, on how many photos.
    """
    epochs = [np.asarray(values, dtype=float) for values in late]
    parts = [
        np.var(values, ddof=1) / max(binomial_deviation(values.mean(), number) ** 2, 1e-12)
        for values, number in zip(epochs, photos, strict=True)
    ]
    part = min(float(np.mean(parts)), 1.0)
    return [number / (1 - part * (1 - 1 / len(values))) for values, number in zip(epochs, photos, strict=True)]


def unrelated_difference(late: Sequence[Sequence[float]], photos: Sequence[int]) -> Estimate:
    """The second session's late mean minus the first's, each on validation photos of its own.

    Newcombe's interval of two unrelated shares ("Interval estimation for the difference between independent
    proportions", Statistics in Medicine 17, 1998, method 10; statsmodels) with `effective_photos`, widened from the
    normal quantile to Student's: the part that the epochs share out is estimated from few of them.
    """
    means = [float(np.mean(values)) for values in late]
    numbers = effective_photos(late, photos)
    freedom = sum(len(values) - 1 for values in late)

    def limits(alpha: float) -> tuple[float, float]:
        alpha = max(2 * stats.norm.sf(stats.t.isf(alpha / 2, freedom)), 1e-300)
        (first, second), (few, many) = means, numbers
        return confint_proportions_2indep(second * many, many, first * few, few, "newcomb", alpha=alpha)

    return inverted_estimate(means[1] - means[0], limits)


# ---- times


def median_parts(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The median with the variance of Price and Bonett, and degrees of freedom that make a t interval a normal one.

    Source: Price and Bonett, "Distribution-free confidence intervals for difference and ratio of medians", Journal of
    Statistical Computation and Simulation 72 (2002): the variance follows from two order statistics about the median.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    number = len(ordered)
    place = max(round((number + 1) / 2 - math.sqrt(number)), 1)
    normal = stats.norm.isf(stats.binom.cdf(place - 1, number, 0.5))
    deviation = (ordered[number - place] - ordered[place - 1]) / (2 * normal)
    return float(np.median(ordered)), (deviation**2, 1e9)
