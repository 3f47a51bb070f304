import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import predictions
from scipy import stats

from flowerlib.report.statistics import (
    accuracy,
    accuracy_without,
    class_table,
    compare_predictions,
    confident_mistakes,
    drawn_estimate,
    holm,
    inverted_estimate,
    outcomes,
    paired_limits,
    reliability_bins,
    t_estimate,
    unsure_hits,
    wilson,
)

# ---- intervals


@pytest.mark.parametrize(
    ("correct", "photos", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), Table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_is_newcombes_score_interval(correct, photos, low, high):
    assert wilson(correct, photos) == pytest.approx((correct / photos, low, high), abs=5e-5)


@given(st.integers(1, 2000).flatmap(lambda photos: st.tuples(st.integers(0, photos), st.just(photos))))
def test_wilson_holds_the_share_and_mirrors(counts):
    correct, photos = counts
    value, low, high = wilson(correct, photos)
    mirrored = wilson(photos - correct, photos)
    assert 0 <= low <= value <= high <= 1
    assert mirrored == pytest.approx((1 - value, 1 - high, 1 - low))


def test_no_photos_have_no_accuracy():
    assert all(map(math.isnan, wilson(0, 0)))


def numbers(estimate):
    return estimate.value, estimate.low, estimate.high


def test_t_estimate_of_one_sample_is_scipys():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    test = stats.ttest_1samp(values, 0.5)
    estimate = t_estimate(values.mean(), [(values.var(ddof=1) / 4, 3)])
    assert (estimate.low, estimate.high) == pytest.approx(tuple(test.confidence_interval()))
    assert estimate.p(0.5) == pytest.approx(test.pvalue)


def test_t_estimate_of_two_samples_is_scipys_of_welch():
    first, second = np.array([1.0, 2.0, 4.0, 7.0]), np.array([3.0, 3.5, 5.0])
    test = stats.ttest_ind(second, first, equal_var=False)
    parts = [(sample.var(ddof=1) / len(sample), len(sample) - 1) for sample in (first, second)]
    estimate = t_estimate(second.mean() - first.mean(), parts)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(test.confidence_interval()))
    assert estimate.p(0) == pytest.approx(test.pvalue)


def test_t_estimate_without_variance_is_the_value():
    estimate = t_estimate(3.0, [(0.0, 4), (0.0, 2)])
    assert numbers(estimate) == (3.0, 3.0, 3.0)
    assert (estimate.p(3.0), estimate.p(2.9)) == (1, 0)


@pytest.mark.parametrize("tails", [(0.025, 0.975), (0.005, 0.975)])
def test_the_test_of_simulated_values_agrees_with_their_interval(tails):
    draws = np.random.default_rng(0).standard_normal(10_000)
    estimate = drawn_estimate(0.0, draws, tails)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(stats.norm.ppf(tails)), abs=0.1)
    for limit in (estimate.low, estimate.high):
        assert estimate.p(1.05 * limit) < 0.05 < estimate.p(0.95 * limit)
    assert estimate.p(0.0) > 0.95


def test_the_inverted_test_agrees_with_its_interval():
    estimate = inverted_estimate(1.0, lambda alpha: (1 - stats.norm.isf(alpha / 2), 1 + stats.norm.isf(alpha / 2)))
    for edge in (-1.5, 0.2, 2.9):
        assert estimate.p(edge) == pytest.approx(2 * stats.norm.sf(abs(edge - 1)), rel=1e-6)
    assert estimate.p(1.0) == 1
    assert estimate.p(100.0) == 1e-6


def test_holms_correction_by_hand():
    # three tests: the least p thrice, the next twice, the last once, never falling; what has no p does not count
    assert holm([0.04, math.nan, 0.01, 0.03]).tolist() == pytest.approx([0.06, math.nan, 0.03, 0.06], nan_ok=True)
    assert np.isnan(holm([math.nan])).all()


def test_wilsons_interval_covers_what_it_says():
    # Wilson's covers 95 % on the average over shares, not at each of them
    for photos in (100, 570):
        counts = np.arange(photos + 1)
        limits = np.array([wilson(correct, photos)[1:] for correct in counts])
        shares = np.linspace(0.6, 0.97, 38)
        chance = stats.binom.pmf(counts[:, None], photos, shares)
        held = (limits[:, :1] <= shares) & (shares <= limits[:, 1:])
        assert 0.945 < (chance * held).sum(axis=0).mean() < 0.96


# ---- one network's predictions


@pytest.fixture
def six():
    """Six photos of three classes: two mistakes, and no photo predicted as a clover."""
    rows = [
        ("a1", "aster", 0.9, 0.1, 0.0),
        ("a2", "aster", 0.3, 0.6, 0.1),
        ("a3", "aster", 0.6, 0.2, 0.2),
        ("b1", "broom", 0.2, 0.8, 0.0),
        ("b2", "broom", 0.1, 0.5, 0.4),
        ("c1", "clover", 0.7, 0.1, 0.2),
    ]
    return pd.DataFrame(rows, columns=["photo", "label", "aster", "broom", "clover"])


def test_outcomes_are_those_of_the_most_probable_class(six):
    table = outcomes(six)
    assert list(table["predicted"]) == ["aster", "broom", "aster", "broom", "broom", "aster"]
    assert list(table["confidence"]) == [0.9, 0.6, 0.6, 0.8, 0.5, 0.7]
    assert list(table["correct"]) == [True, False, True, True, True, False]


def test_accuracy_is_the_share_of_right_photos(six):
    assert accuracy(six) == wilson(4, 6)


def test_precision_counts_predictions_and_recall_labels(six):
    table = class_table(six)
    assert table.index.tolist() == ["aster", "broom", "clover"]
    assert table["labelled"].tolist() == [3, 2, 1]
    assert table["predicted"].tolist() == [3, 3, 0]
    assert table["correct"].tolist() == [2, 2, 0]
    assert table["precision"].tolist()[:2] == [2 / 3, 2 / 3]
    assert table["recall"].tolist() == [2 / 3, 1, 0]
    assert math.isnan(table.loc["clover", "precision"])
    assert math.isnan(table.loc["clover", "precision_low"])
    assert tuple(table.loc["broom", ["recall", "recall_low", "recall_high"]]) == wilson(2, 2)


def test_bins_hold_their_upper_edge(six):
    table = reliability_bins(six, bins=10).set_index(np.arange(1, 11))
    assert table["photos"].tolist() == [0, 0, 0, 0, 1, 2, 1, 1, 1, 0]
    assert table.loc[6, ["from", "to", "confidence", "accuracy"]].tolist() == pytest.approx([0.5, 0.6, 0.6, 0.5])
    assert tuple(table.loc[6, ["accuracy", "accuracy_low", "accuracy_high"]]) == wilson(1, 2)
    assert table.loc[1, ["confidence", "accuracy"]].isna().all()


def test_mistakes_come_most_confident_first_and_hits_least_sure_first(six):
    assert confident_mistakes(six)["photo"].tolist() == ["c1", "a2"]
    assert confident_mistakes(six, 1)["photo"].tolist() == ["c1"]
    assert unsure_hits(six, 3)["photo"].tolist() == ["b2", "a3", "b1"]


def test_accuracy_without_some_photos(six):
    table = accuracy_without(six, ["a2", "b1", "not a validation photo"])
    assert table["photos"].to_dict() == {"all": 6, "without": 4, "alone": 2}
    assert table["correct"].to_dict() == {"all": 4, "without": 3, "alone": 1}
    assert tuple(table.loc["without", ["accuracy", "low", "high"]]) == wilson(3, 4)


def test_without_no_photo_nothing_changes(six):
    table = accuracy_without(six, [])
    assert table.loc["all"].equals(table.loc["without"].rename("all"))
    assert math.isnan(table.loc["alone", "accuracy"])


# ---- two networks


def pair(both, only_first, only_second, neither):
    counts = [both, only_first, only_second, neither]
    return predictions(np.repeat([1, 1, 0, 0], counts)), predictions(np.repeat([1, 0, 1, 0], counts))


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    # statsmodels, stats/tests/test_nonparametric.py: Vassar College's online calculator
    [(121, 59, 0.000004), (70, 59, 0.378688), (80, 59, 0.089452), (30, 60, 0.00206), (10, 30, 0.002221), (10, 10, 1)],
)
def test_mcnemars_exact_test(only_first, only_second, p_value):
    result = compare_predictions(*pair(101, only_first, only_second, 33))
    assert (result.only_first, result.only_second) == (only_first, only_second)
    assert result.photos == 134 + only_first + only_second
    assert result.p_value == pytest.approx(p_value, abs=5e-7 + 1e-6)
    assert result.difference.value == pytest.approx((only_second - only_first) / result.photos)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    # Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data"
    # (1998), Table III, method 10; his difference is the first share minus the second
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((35, 14, 0, 1), 0.1461, 0.4175),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((1, 97, 1, 1), 0.8736, 0.9850),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((30, 0, 0, 24), -0.0358, 0.0358),
    ],
)
def test_the_paired_interval_is_newcombes(cells, low, high):
    both, only_first, only_second, neither = cells
    assert paired_limits((both, only_second, only_first, neither)) == pytest.approx((low, high), abs=1e-4)
    assert paired_limits(cells) == pytest.approx((-high, -low), abs=1e-4)


@pytest.mark.parametrize("shares", [(0.718, 0.051, 0.016, 0.215), (0.93, 0.02, 0.02, 0.03), (0.9, 0.0, 0.02, 0.08)])
def test_the_paired_interval_covers_what_it_says(shares):
    counts = np.random.default_rng(0).multinomial(570, shares, 1000)
    limits = np.array([paired_limits(tuple(map(int, cells))) for cells in counts])
    truth = shares[2] - shares[1]
    assert 0.94 < np.mean((limits[:, 0] <= truth) & (truth <= limits[:, 1])) < 0.98


def test_the_interval_and_mcnemars_test_agree_but_for_few_photos():
    for only_first in range(0, 30, 5):
        for only_second in range(0, 60, 4):
            result = compare_predictions(*pair(300, only_first, only_second, 20))
            value, low, high = numbers(result.difference)
            assert low <= value <= high
            if result.p_value < 0.05:  # McNemar's exact test is the stricter
                assert low > 0 or high < 0


def test_against_zero_the_exact_test_is_taken_and_else_the_inverted_interval():
    result = compare_predictions(*pair(400, 9, 29, 132))
    assert result.difference.p(0.0) == result.p_value
    assert result.difference.p(result.difference.low) == pytest.approx(0.05)
    assert result.difference.p(result.difference.high) == pytest.approx(0.05)


def test_photos_are_matched_by_name_and_only_those_of_both_count():
    first = predictions([1, 1, 0, 1], ["p", "q", "r", "only here"])
    second = predictions([1, 0, 1, 0], ["r", "q", "p", "only there"])
    result = compare_predictions(first, second)
    assert (result.photos, result.only_first, result.only_second) == (3, 1, 1)
