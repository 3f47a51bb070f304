import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import predictions
from scipy import stats

from flowerlib.report.statistics import (
    accuracy,
    accuracy_without,
    calibration_error,
    class_table,
    compare_predictions,
    confident_mistakes,
    convergence_epoch,
    format_mean_sd,
    mean_step,
    outcomes,
    reliability_bins,
    t_interval,
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


def test_t_interval_of_one_sample_is_scipys():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert t_interval(values.mean(), [(values.var(ddof=1) / 4, 3)]) == pytest.approx(tuple(expected))


def test_t_interval_of_two_samples_is_scipys_of_welch():
    first, second = np.array([1.0, 2.0, 4.0, 7.0]), np.array([3.0, 3.5, 5.0])
    expected = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
    parts = [(sample.var(ddof=1) / len(sample), len(sample) - 1) for sample in (first, second)]
    assert t_interval(second.mean() - first.mean(), parts) == pytest.approx(tuple(expected))


def test_t_interval_without_variance_is_the_value():
    assert t_interval(3.0, [(0.0, 4), (0.0, 2)]) == (3.0, 3.0)


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
    assert list(table["label_probability"]) == [0.9, 0.3, 0.6, 0.8, 0.5, 0.2]
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


def test_calibration_error_by_hand(six):
    # bins of .1: (.5) right, (.6, .6) one right, (.7) wrong, (.8) right, (.9) right
    by_hand = (1 * 0.5 + 2 * abs(0.5 - 0.6) + 1 * 0.7 + 1 * 0.2 + 1 * 0.1) / 6
    assert calibration_error(six, bins=10).value == pytest.approx(by_hand)


def test_in_one_bin_the_error_is_accuracy_against_mean_confidence(six):
    assert calibration_error(six, bins=1).value == pytest.approx(abs(4 / 6 - 4.1 / 6))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60), st.integers(1, 20))
def test_the_calibration_error_follows_from_the_bins_and_lies_in_its_interval(seed, photos, bins):
    random = np.random.default_rng(seed)
    table = pd.DataFrame(random.dirichlet([1, 1, 1], photos), columns=["x", "y", "z"])
    table.insert(0, "photo", np.arange(photos).astype(str))
    table.insert(1, "label", random.choice(["x", "y", "z"], photos))
    parts = reliability_bins(table, bins).dropna()
    value, low, high = calibration_error(table, bins)
    assert value == pytest.approx((parts["photos"] * (parts["accuracy"] - parts["confidence"]).abs()).sum() / photos)
    assert 0 <= low <= value <= high


def sure(right, confidence):
    """Photos predicted with one confidence."""
    table = predictions(right)
    values = np.where(right, confidence, 1 - confidence)
    return table.assign(aster=values, broom=1 - values)


def test_only_an_uncalibrated_network_has_an_error_above_zero():
    right = np.arange(400) < 360
    assert calibration_error(sure(right, 0.9)).low == 0
    error = calibration_error(sure(right, 0.99))
    assert error.value == pytest.approx(0.09)
    # one bin: the error's interval is that of an accuracy of .9 of 400
    assert (error.low, error.high) == pytest.approx((0.09 - 1.96 * 0.015, 0.09 + 1.96 * 0.015), abs=0.004)


def test_resampling_is_the_same_every_time(six):
    assert calibration_error(six) == calibration_error(six)


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


def test_the_bootstrap_agrees_with_the_normal_interval_where_many_photos_differ():
    result = compare_predictions(*pair(400, 60, 100, 10))
    # Wald's interval of a paired difference; Newcombe, "Improved confidence intervals ... paired data" (1998), (1)
    half = 1.96 * math.sqrt(60 + 100 - 40**2 / 570) / 570
    assert result.difference[1:] == pytest.approx((40 / 570 - half, 40 / 570 + half), abs=0.004)


def test_few_differing_photos_decide_nothing():
    # a bootstrap alone would exclude 0: all four are missing from one resample of e^4 = 55 only
    result = compare_predictions(*pair(500, 0, 4, 66))
    assert result.p_value == pytest.approx(0.125)
    assert result.difference.low == 0
    assert compare_predictions(*pair(500, 0, 6, 64)).difference.low > 0  # p = .031


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_the_interval_holds_the_difference_and_agrees_with_the_test(only_first, only_second):
    result = compare_predictions(*pair(300, only_first, only_second, 20))
    value, low, high = result.difference
    assert low <= value <= high
    if result.p_value >= 0.05:
        assert low <= 0 <= high


def test_photos_are_matched_by_name_and_only_those_of_both_count():
    first = predictions([1, 1, 0, 1], ["p", "q", "r", "only here"])
    second = predictions([1, 0, 1, 0], ["r", "q", "p", "only there"])
    result = compare_predictions(first, second)
    assert (result.photos, result.only_first, result.only_second) == (3, 1, 1)


def test_tables_without_a_common_photo_are_refused():
    with pytest.raises(ValueError, match="no photo in common"):
        compare_predictions(predictions([1], ["p"]), predictions([1], ["q"]))


# ---- one curve


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


def test_mean_step_by_hand():
    assert mean_step([0.9, 0.8, 0.8, 0.95]) == pytest.approx(0.25 / 3)


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (0.91234, 0.0113, "0.912 ± 0.011"),
        (0.91234, 0.0046, "0.912 ± 0.005"),
        (0.91234, 0.0251, "0.91 ± 0.03"),
        (0.91234, 0.0099, "0.912 ± 0.010"),
        (0.91234, 0.00996, "0.912 ± 0.010"),
        (1234.5, 12.0, "1234 ± 12"),
        (0.91234, math.nan, "0.912"),
        (0.91234, 0.0, "0.912 ± 0.000"),
        (math.nan, math.nan, "–"),
    ],
)
def test_a_mean_has_as_many_digits_as_its_spread_lets_it_carry(mean, sd, text):
    assert format_mean_sd(mean, sd) == text
