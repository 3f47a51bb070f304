from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up import SLOW, make_run, predictions
from scipy import stats

from flowerlib.report.paper.published import SESSIONS
from flowerlib.report.readings import augmented_difference, readings_table


@pytest.fixture(scope="module")
def published():
    table = readings_table([])
    assert (table["evidence"] == "published").all()
    return table.set_index(["key", "reading"])


def number(table, key, start):
    """The one reading of a claim whose text begins so."""
    (row,) = [row for (letter, reading), row in table.iterrows() if letter == key and reading.startswith(start)]
    return row


def test_in_absolute_terms_batch_64_is_slower_in_every_metric(published):
    better = [number(published, "c", f"epochs of 20 in which its {name}")["value"] for name in (
        "training loss", "training accuracy", "validation loss", "validation accuracy")]  # fmt: skip
    assert better == [0, 0, 0, 1]


def test_relative_to_their_own_plateaus_the_published_curves_say_the_opposite(published):
    # 90 % of the fall: training loss 3.4 against 4.2 epochs, validation loss 4.7 against 6.6
    assert number(published, "c", "epochs to 90 % of the training loss")["value"] == pytest.approx(-0.8, abs=0.05)
    assert number(published, "c", "epochs to 90 % of the validation loss")["value"] == pytest.approx(-1.9, abs=0.05)
    # ResNet-34: ahead in 20 of 20 epochs of training loss; 5.1 against 4.2 and 9.0 against 6.6
    assert number(published, "f", "epochs of 20 in which its training loss")["value"] == 20
    assert number(published, "f", "epochs to 90 % of the training loss")["value"] == pytest.approx(0.9, abs=0.1)
    assert number(published, "f", "epochs to 90 % of the validation loss")["value"] == pytest.approx(2.4, abs=0.1)


def test_given_their_photos_the_published_late_accuracies_are_apart(published):
    row = number(published, "e1", "late mean of the validation accuracy")
    assert row[["value", "low", "high"]].tolist() == pytest.approx([-0.0305, -0.0429, -0.0181], abs=5e-5)
    assert number(published, "g", "late mean of the training accuracy")["value"] == pytest.approx(0.019, abs=5e-4)
    assert number(published, "g", "late mean of the validation accuracy")["high"] > 0


def with_counts(run, counts, evaluations=10):
    table = pd.DataFrame({"photo": run.predictions["photo"], "correct": counts})
    return replace(run, repeats=(float(np.mean(counts)) / evaluations,) * evaluations, augmented=table)


def test_two_sessions_are_compared_photo_by_photo_under_the_papers_protocol():
    random = np.random.default_rng(0)
    chances = random.beta(2, 1, (2, 1000))
    runs = [
        with_counts(make_run(name), random.binomial(10, chance))
        for name, chance in zip(("resnet18-bs32", "resnet34-bs32"), chances, strict=True)
    ]
    estimate = augmented_difference(*runs)
    shares = [run.augmented["correct"] / 10 for run in runs]
    expected = stats.ttest_rel(shares[1], shares[0])
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert estimate.p(0) == pytest.approx(expected.pvalue)
    shuffled = replace(runs[1], augmented=runs[1].augmented.sample(frac=1, random_state=0))
    assert augmented_difference(runs[0], shuffled).low == pytest.approx(estimate.low)
    assert augmented_difference(runs[0], replace(runs[1], augmented=None)) is None
    other = replace(runs[1], augmented=runs[1].augmented.assign(photo=[f"other {n}" for n in range(1000)]))
    assert augmented_difference(runs[0], other) is None
    readings = readings_table(runs)["reading"]
    assert (readings == "repeated evaluations, photo by photo").sum() == 1


def test_the_interval_photo_by_photo_covers_what_it_says():
    random, missed = np.random.default_rng(0), 0
    base = make_run("resnet18-bs32", table=predictions(np.ones(570)), photos=570)
    for _ in range(300):
        chance = random.beta(3, 1, 570)
        counts = [random.binomial(20, np.clip(chance + shift, 0, 1)) for shift in (0.0, 0.0)]
        estimate = augmented_difference(*(with_counts(base, each, 20) for each in counts))
        missed += not estimate.low <= 0 <= estimate.high
    assert 0.02 < missed / 300 < 0.08


def test_what_a_table_lacks_has_no_reading():
    short = [make_run(name, curve=SLOW[:3]) for name in SESSIONS]
    ours = readings_table(short).query("evidence == 'ours'")
    assert ours.empty
