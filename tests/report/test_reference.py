"""The committed reference runs as a statistician reads them: verdicts, and the numbers that other code found."""

import numpy as np
import pytest

from flowerlib.files import REPORT
from flowerlib.report.measures import NOISE_SHARE, noise_share, share_draws
from flowerlib.report.readings import readings_table
from flowerlib.report.statistics import compare_predictions, holm
from flowerlib.report.verdicts import CONTRADICTED, OURS, SUPPORTED, UNDECIDED, judge_all
from flowerlib.runs import read_runs

PAPER = REPORT / "results" / "paper"
NOT_CORRECTED = f"{SUPPORTED}, not after correction"


@pytest.fixture(scope="module")
def everything():
    return read_runs(PAPER, order=["resnet18-bs32", "resnet18-bs64", "resnet34-bs32"])


@pytest.fixture(scope="module")
def runs(everything):
    """The paper's sessions; beside them stands one of another network."""
    return everything[:3]


@pytest.fixture(scope="module")
def ablations():
    return read_runs(PAPER / "ablations", order=["all"])


@pytest.fixture(scope="module")
def ours(everything, ablations):
    return {each.claim.key: each for each in judge_all(everything, ablations=ablations) if each.evidence == OURS}


@pytest.fixture(scope="module")
def readings(runs, ablations):
    table = readings_table(runs, ablations)
    return table[table["evidence"] == OURS].set_index(["key", "protocol", "reading"])["value"]


def test_the_verdicts_of_the_committed_runs(ours):
    assert {key: finding.corrected for key, finding in ours.items()} == {
        "a": NOT_CORRECTED,
        "b": NOT_CORRECTED,
        "c": UNDECIDED,
        "d": UNDECIDED,
        "e1": SUPPORTED,
        "e2": UNDECIDED,
        "f": UNDECIDED,
        "g": NOT_CORRECTED,
        "h": SUPPORTED,
        "i": CONTRADICTED,
        "j": SUPPORTED,
    }
    assert all(finding.decides for finding in ours.values() if finding.verdict == UNDECIDED)


def test_batch_64_is_less_accurate(ours):
    finding = ours["e1"]
    assert (finding.value, finding.low, finding.high) == pytest.approx((-0.0351, -0.0567, -0.0138), abs=5e-5)
    assert finding.p == pytest.approx(0.00166, abs=5e-6)


def test_a_fixed_networks_scatter(runs, readings):
    assert [noise_share(run) for run in runs] == pytest.approx([0.85, 0.85, 0.96], abs=0.006)
    assert noise_share(runs[0]) == pytest.approx(NOISE_SHARE, abs=0.005)
    fixed = readings["b", "augmented validation", "mean step of the fixed network's repeated evaluations"]
    assert fixed == pytest.approx(0.0219, abs=5e-5)


def test_the_repeats_are_paired(runs, readings):
    assert all(share_draws(runs[0], run) for run in runs[1:])
    name = "mean of the repeated evaluations, given the photos"
    assert readings["e1", "augmented validation", name] == pytest.approx(-0.044, abs=5e-4)
    assert readings["g", "augmented validation", name] == pytest.approx(0.012, abs=5e-4)


def test_the_times_and_the_ablations(ours, runs, ablations):
    assert ours["h"].value == pytest.approx(1.83, abs=0.005)
    medians = [np.median(run.metrics["train_seconds"]) for run in runs]
    assert medians[1] / medians[0] == pytest.approx(0.996, abs=5e-4)
    assert ours["i"].value == pytest.approx(-0.040, abs=5e-4)
    assert ours["i"].p == pytest.approx(0.0044, abs=5e-5)
    full, *others = ablations
    p_values = {run.name: compare_predictions(full.predictions, run.predictions).p_value for run in others}
    assert len(p_values) == 9
    outliving = {name for name, p in zip(p_values, holm(list(p_values.values())), strict=True) if p < 0.05}
    assert outliving == {"no-augmentation", "random-weights", "frozen-backbone"}
