import math

import numpy as np
import pytest
from made_up import make_run, with_right

from flowerlib.report.beside import LATE, headline, noise, others_numbers, others_table
from flowerlib.report.grouping import Session
from flowerlib.report.paper.published import SESSIONS
from flowerlib.report.statistics import wilson

# ---- beside the published tables


def test_noise_of_the_late_epochs_and_of_repeated_evaluations():
    evaluations = [0.91, 0.93, 0.92, 0.94]
    table = noise(evaluations, photos=400)
    assert table.index.tolist() == [*SESSIONS, "repeated evaluation"]
    assert table["evaluations"].tolist() == [6, 6, 6, 4]
    # Table 1, epochs 14-19: .930 .907 .919 .921 .932 .911; steps .023 .012 .002 .011 .021
    first = table.loc["resnet18-bs32"]
    assert (first["mean"], first["mean_step"]) == pytest.approx((0.92, 0.069 / 5))
    assert first["sd"] == pytest.approx(math.sqrt((100 + 169 + 1 + 1 + 144 + 81) / 5) / 1000)
    assert first["binomial_sd"] == pytest.approx(math.sqrt(0.92 * 0.08 / 570))
    ours = table.loc["repeated evaluation"]
    assert ours["binomial_sd"] == pytest.approx(math.sqrt(0.925 * 0.075 / 400))
    # chi-square with 3 degrees of freedom: .2158 and 9.3484 (any table of its quantiles)
    variance = np.var(evaluations, ddof=1)
    limits = math.sqrt(3 * variance / 9.3484), math.sqrt(3 * variance / 0.2158)
    assert (ours["sd_low"], ours["sd_high"]) == pytest.approx(limits, rel=1e-4)


# ---- accuracies after the last epoch


def test_augmented_accuracy_is_the_mean_of_the_repeats_with_their_scatter():
    runs = [
        make_run("resnet18-bs32", seed=0, table=with_right(900), evaluations=(0.8, 0.82, 0.84)),
        make_run("resnet18-bs32", seed=1, table=with_right(910), evaluations=(0.86, 0.86, 0.86)),
    ]
    single = make_run("resnet18-bs64")
    table = headline([Session("twice", tuple(runs)), Session("once", (single,))]).set_index("session")
    twice = table.loc["twice"]
    assert (twice["clean"], twice["clean_low"], twice["clean_high"]) == wilson(900, 1000)
    assert (twice["augmented"], twice["augmented_sd"]) == pytest.approx((0.84, 0.02))
    assert (twice["seeds"], twice["evaluations"]) == (2, 3)
    assert table.loc["once", "augmented"] == single.metrics["val_aug_acc"].iloc[-1]
    assert table.loc["once", "evaluations"] == 0
    assert math.isnan(table.loc["once", "augmented_sd"])


# ---- others


def test_the_published_sessions_stand_among_those_of_others():
    table = others_table().set_index("run")
    assert LATE == 14
    assert table["late_acc"].is_monotonic_decreasing
    assert table.loc[list(SESSIONS), "late_acc"].tolist() == pytest.approx([0.92, 0.8895, 0.916])
    assert table.loc[["E18", "E34", "E50"], "late_acc"].tolist() == pytest.approx([0.8971, 0.9015, 0.9115], abs=5e-5)
    assert (table["source"] == "others").sum() == 7
    # ResNet-18 at batch 32: the paper's is the highest, and its batch 64 is below everybody
    assert table.index[0] == "resnet18-bs32"
    assert table.index[-1] == "resnet18-bs64"


def test_what_others_runs_say_of_the_papers_comparisons():
    numbers = others_numbers()
    assert numbers["students"] == 5
    assert (numbers["lowest"], numbers["highest"]) == pytest.approx((0.897, 0.918), abs=5e-4)
    assert numbers["spread"] == pytest.approx(numbers["highest"] - numbers["lowest"])
    assert numbers["deeper"] == pytest.approx(0.004, abs=5e-4)
    assert numbers["deeper_time"] == pytest.approx(291 / 278)
    assert numbers["published_deeper"] == pytest.approx(-0.004)
    assert numbers["spread"] > abs(numbers["published_deeper"])
