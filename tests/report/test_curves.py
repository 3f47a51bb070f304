import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import QUICK, SLOW
from scipy import stats

from flowerlib.report import curves
from flowerlib.report.curves import (
    CONVERGED_WITHIN,
    CONVERGENCE_TAILS,
    NOISE_STEP,
    STEP_VARIANCE,
    convergence_epoch,
    effective_photos,
    falling_epoch,
    late_difference,
    mean_step,
    median_parts,
    reaching_epoch,
    simulated_convergence,
    step_difference,
    step_ratio,
    unrelated_difference,
)
from flowerlib.report.statistics import TAILS, NoEvidence, drawn_estimate, t_estimate


def missed(estimates, truth):
    """In which shares of the cases the interval lies above the truth, and below it."""
    return np.mean([each.low > truth + 1e-9 for each in estimates]), np.mean(
        [each.high < truth - 1e-9 for each in estimates]
    )


# ---- convergence


@pytest.mark.parametrize(
    ("curve", "epoch"),
    [
        # the aim is .88: 90 % of the way from .7 to .9
        ([0.5, 0.7, 0.9, 0.9, 0.9, 0.9], 1.9),
        ([0.89, 0.9, 0.9, 0.9, 0.9, 0.9], 0),
        # a lucky epoch 1 is averaged with what follows: .5, then three times .6333, and 92.5 % of the way to .9
        ([0.5, 0.9, 0.5, 0.5, 0.9, 0.9], 3.925),
        # it falls in the end: all are pooled to the mean
        ([0.9, 0.9, 0.8, 0.8, 0.8, 0.8], 0),
    ],
)
def test_convergence_by_hand(curve, epoch):
    assert convergence_epoch(curve, final=4) == pytest.approx(epoch)


@given(st.lists(st.floats(0.1, 0.9), min_size=4, max_size=25), st.floats(-0.1, 0.1))
def test_convergence_is_an_epoch_and_does_not_depend_on_the_level(curve, shift):
    epoch = convergence_epoch(curve, final=len(curve) - 2)
    assert 0 <= epoch <= len(curve) - 1
    assert convergence_epoch([value + shift for value in curve], len(curve) - 2) == pytest.approx(epoch, abs=1e-6)


def test_a_level_is_reached_or_not():
    assert reaching_epoch([0.5, 0.7, 0.9], 0.8) == pytest.approx(1.5)
    assert reaching_epoch([0.5, 0.7, 0.9], 0.4) == 0
    assert math.isnan(reaching_epoch([0.5, 0.7, 0.9], 0.91))


def test_a_losss_fall_by_hand():
    # from 1 to .2, so that 90 % are at .28: 40 % of the way from .3 to .25
    assert falling_epoch([1, 0.5, 0.3, 0.25, 0.2, 0.2], final=4) == pytest.approx(2.4)


STEEP = 0.9 - 0.4 * np.exp(-np.arange(20) / 0.5)
MIDDLE = 0.92 - 0.3 * np.exp(-np.arange(20) / 1.5)


def converging(truth, random, correlation=0.0, sessions=1):
    """The convergence, or the difference of two sessions', of curves with the noise of 570 photos."""
    deviation = 0.85 * np.sqrt(truth * (1 - truth) / 570)
    shared = random.standard_normal(20)
    noisy = [
        truth
        + deviation * (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * random.standard_normal(20))
        for _ in range(sessions)
    ]
    draws = simulated_convergence(noisy, [14] * sessions, [deviation] * sessions, correlation)
    epochs = [convergence_epoch(curve, 14) for curve in noisy]
    if sessions == 1:
        return drawn_estimate(epochs[0], draws[0], CONVERGENCE_TAILS)
    return drawn_estimate(epochs[1] - epochs[0], draws[1] - draws[0])


@pytest.fixture
def few_curves(monkeypatch):
    monkeypatch.setattr(curves, "CURVES", 500)


@pytest.mark.parametrize("truth", [STEEP, MIDDLE, SLOW])
def test_the_convergence_interval_covers_what_it_says(truth, few_curves):
    random = np.random.default_rng(0)
    above, below = missed([converging(truth, random) for _ in range(80)], convergence_epoch(truth, 14))
    assert above + below < 0.08
    assert below < 0.04


def test_without_the_allowance_a_steep_curves_lower_limit_misses(few_curves, monkeypatch):
    monkeypatch.setitem(globals(), "CONVERGENCE_TAILS", TAILS)
    random = np.random.default_rng(0)
    above, _ = missed([converging(STEEP, random) for _ in range(80)], convergence_epoch(STEEP, 14))
    assert above > 0.05


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_interval_of_two_convergences_covers_what_it_says(correlation, few_curves):
    random = np.random.default_rng(0)
    assert sum(missed([converging(MIDDLE, random, correlation, 2) for _ in range(50)], 0.0)) < 0.06


def test_shared_draws_narrow_the_interval_of_a_difference(few_curves):
    random = np.random.default_rng(0)
    alone, shared = (
        np.mean([each.high - each.low for each in (converging(MIDDLE, random, rho, 2) for _ in range(15))])
        for rho in (0.0, 0.9)
    )
    assert shared < 0.7 * alone


def test_without_noise_every_simulated_curve_is_the_fit():
    (draws,) = simulated_convergence([QUICK], [14], [np.zeros(20)])
    assert np.allclose(draws, convergence_epoch(QUICK, 14))
    assert CONVERGED_WITHIN == 0.02


# ---- steps


def test_mean_step_by_hand():
    assert mean_step([0.9, 0.8, 0.8, 0.95]) == pytest.approx(0.25 / 3)


def test_the_constants_of_white_noise():
    noise = np.random.default_rng(0).standard_normal((20_000, 200))
    steps = np.abs(np.diff(noise, axis=1))
    assert steps.mean() == pytest.approx(NOISE_STEP, rel=0.005)
    first, second = steps[:, 100], steps[:, 101]
    assert 1 + 2 * np.corrcoef(first, second)[0, 1] == pytest.approx(STEP_VARIANCE, abs=0.03)


def test_the_interval_of_one_short_curves_steps_covers_what_it_says():
    # the t interval over the 9 steps of 10 epochs is not above 2.5 %: it misses in 7 %
    random = np.random.default_rng(0)
    noise = random.standard_normal((800, 10))
    above, below = missed([step_ratio(curve, 1.0) for curve in noise], 0.0)
    assert (above, below) == pytest.approx((0.025, 0.025), abs=0.013)
    references = random.standard_normal((800, 20))
    pairs = zip(noise, references, strict=True)
    assert missed([step_ratio(*pair) for pair in pairs], 0.0) == pytest.approx((0.025, 0.025), abs=0.013)
    steps = np.abs(np.diff(noise, axis=1))
    plain = [t_estimate(each.mean(), [(each.var(ddof=1) / 9, 8)]) for each in steps]
    assert missed(plain, NOISE_STEP)[1] > 0.05


def test_a_curve_that_does_not_move_has_no_ratio():
    with pytest.raises(NoEvidence, match="no scatter"):
        step_ratio([0.9, 0.9], [0.8, 0.9])
    assert math.exp(step_ratio([0.9, 0.8, 0.9], [0.8, 0.85, 0.8]).value) == pytest.approx(2)


@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_of_two_curves_steps_covers_what_it_says(paired):
    # without the allowance for steps that share an epoch it covers 90 %
    random, shared = np.random.default_rng(0), math.sqrt(0.8) if paired else 0.0
    common = shared * random.standard_normal((1500, 1, 13))
    noise = common + math.sqrt(1 - shared**2) * random.standard_normal((1500, 2, 13))
    assert 0.03 < sum(missed([step_difference(*pair, paired) for pair in noise], 0.0)) < 0.06


# ---- late levels


@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_of_late_means_covers_what_it_says_given_the_photos(paired):
    noise = np.random.default_rng(0).standard_normal((1500, 2, 6))
    assert sum(missed([late_difference(*pair, paired) for pair in noise], 0.0)) == pytest.approx(0.05, abs=0.015)


def test_late_means_are_compared_by_welchs_t_or_by_epoch():
    first, second = [0.93, 0.91, 0.92], [0.90, 0.88, 0.87]
    welch = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
    estimate = late_difference(first, second)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(welch))
    by_epoch = stats.ttest_rel(second, first).confidence_interval()
    estimate = late_difference(first, second, paired=True)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(by_epoch))


def evaluated(share, random, concentration, photos=570, epochs=6):
    """Late accuracies on new photos, each right with a probability of its own."""
    chances = random.beta(concentration * share, concentration * (1 - share), photos)
    return (random.random((epochs, photos)) < chances).mean(axis=1)


@pytest.mark.parametrize("concentration", [0.5, 1.0, 3.0])  # a third, a half, three quarters of the binomial variance
def test_the_interval_for_unrelated_photos_covers_what_it_says(concentration):
    random = np.random.default_rng(0)
    estimates = [
        unrelated_difference([evaluated(share, random, concentration) for share in (0.92, 0.89)], [570, 570])
        for _ in range(500)
    ]
    assert sum(missed(estimates, -0.03)) < 0.065


def test_epochs_that_scatter_like_new_photos_count_as_often_as_they_are():
    # constant epochs: six evaluations tell no more than one; the full binomial variance: six times the photos
    assert effective_photos([[0.9] * 6], [500]) == [500]
    wave = 0.9 + math.sqrt(0.09 / 500) * np.array([1, -1, 1, -1, 1, -1]) * math.sqrt(5 / 6)
    assert effective_photos([wave], [500])[0] == pytest.approx(3000)


def test_constant_epochs_give_newcombes_interval_widened_to_student():
    # Newcombe, "Interval estimation for the difference between independent proportions" (1998), Table II (a),
    # method 10: 56/70 - 48/80; with very many epochs Student's quantile is the normal one
    estimate = unrelated_difference([np.full(2000, 0.6), np.full(2000, 0.8)], [80, 70])
    assert (estimate.low, estimate.high) == pytest.approx((0.0524, 0.3339), abs=2e-4)
    few = unrelated_difference([np.full(4, 0.6), np.full(4, 0.8)], [80, 70])
    assert few.low < estimate.low - 0.02


# ---- times


@pytest.mark.parametrize("disturbed", [0.0, 0.15])
def test_the_interval_of_medians_covers_what_it_says(disturbed):
    random = np.random.default_rng(0)

    def times(seconds):
        extra = (random.random(20) < disturbed) * random.exponential(0.25, 20)
        return math.log(seconds) + random.normal(0, 0.015, 20) + extra

    estimates = []
    for _ in range(600):
        (first, one), (second, other) = median_parts(times(71)), median_parts(times(130))
        estimates.append(t_estimate(second - first, [one, other]))
    assert sum(missed(estimates, math.log(130 / 71))) < 0.065  # 98 % where epochs are disturbed


def test_a_medians_variance_by_hand():
    # 9 values: the place is 5 - 3 = 2, and P(at most 1 of 9 heads) = 10 / 512 gives a normal quantile of 2.064
    median, (variance, _) = median_parts([1, 2, 3, 4, 5, 6, 7, 8, 90])
    assert median == 5
    assert math.sqrt(variance) == pytest.approx((8 - 2) / (2 * stats.norm.isf(10 / 512)))
