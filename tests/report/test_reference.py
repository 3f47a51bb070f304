"""The committed reference runs as a statistician reads them: verdicts, and the numbers that other code found."""

import math

import numpy as np
import pandas as pd
import pytest

from flowerlib.files import PROJECT, REPORT
from flowerlib.report.curves import mean_step
from flowerlib.report.measures import NOISE_SHARE, noise_share, share_draws
from flowerlib.report.phrases import decimal, whole
from flowerlib.report.readings import readings_table
from flowerlib.report.statistics import compare_predictions, holm
from flowerlib.report.verdicts import METHOD, OURS, SUPPORTED, UNDECIDED, judge_all
from flowerlib.runs import read_runs

PAPER = REPORT / "results" / "paper"
SESSIONS = ["resnet18-bs32", "resnet18-bs64", "resnet34-bs32"]
NOT_CORRECTED = f"{SUPPORTED}, not after correction"
PAGES = [(PROJECT / name).read_text() for name in ("README.md", "docs/results.md")]


@pytest.fixture(scope="module")
def everything():
    return read_runs(PAPER, order=SESSIONS)


@pytest.fixture(scope="module")
def runs(everything):
    """The paper's sessions; beside them stands one of another network."""
    return everything[:3]


@pytest.fixture(scope="module")
def seeds():
    return read_runs(PAPER / "seeds", order=SESSIONS)


@pytest.fixture(scope="module")
def ablations():
    return read_runs(PAPER / "ablations", order=["all"])


@pytest.fixture(scope="module")
def ours(everything, seeds, ablations):
    return {each.claim.key: each for each in judge_all(everything, seeds, ablations) if each.evidence == OURS}


def test_the_verdicts_of_the_committed_runs(ours):
    assert {key: finding.corrected for key, finding in ours.items()} == {
        "a": SUPPORTED,
        "b": NOT_CORRECTED,
        "c": UNDECIDED,
        "d": UNDECIDED,
        "e1": SUPPORTED,
        "e2": UNDECIDED,
        "f": UNDECIDED,
        "g": UNDECIDED,
        "h": NOT_CORRECTED,
        "i": UNDECIDED,
        "j": SUPPORTED,
    }
    assert all(finding.decides for finding in ours.values() if finding.verdict == UNDECIDED)
    assert "".join(key for key, finding in ours.items() if finding.scope.startswith(METHOD)) == "abcde1e2fgij"


def test_batch_64_is_less_accurate(runs):
    found = compare_predictions(*(run.predictions for run in runs[:2])).difference
    assert (found.value, found.low, found.high) == pytest.approx((-0.0281, -0.0493, -0.0072), abs=6e-5)
    assert found.p(0) == pytest.approx(0.0113, abs=5e-5)


def test_a_fixed_networks_scatter(runs):
    shares = [noise_share(run) for run in runs]
    assert shares == pytest.approx([0.80, 0.85, 0.94], abs=0.006)
    assert np.median(shares) == pytest.approx(NOISE_SHARE, abs=0.005)
    assert mean_step(runs[0].repeats) == pytest.approx(0.0175, abs=5e-5)
    assert all(share_draws(runs[0], run) for run in runs[1:])


def test_what_the_discussion_says_of_every_epoch(runs, seeds):
    for each in (runs, seeds):
        table = readings_table(each).query("evidence == 'ours' and key == 'c'")
        behind = table[table["reading"].str.contains("is better")]
        assert len(behind) == 6
        assert (behind["value"] == 0).all()


def test_the_times_and_the_ablations(ours, runs, ablations):
    assert ours["h"].value == pytest.approx(1.56, abs=0.005)
    medians = [np.median(run.metrics["train_seconds"]) for run in runs]
    assert medians[2] / medians[0] == pytest.approx(ours["h"].value)
    last = {run.name: run.metrics["val_acc"].iloc[-1] for run in ablations}
    for key, without, value in (("i", "no-augmentation", -0.0158), ("j", "random-weights", 0.4602)):
        gains = [last[f"all-seed{seed}"] - last[f"{without}-seed{seed}"] for seed in range(3)]
        assert ours[key].value == pytest.approx(np.mean(gains))
        assert np.mean(gains) == pytest.approx(value, abs=5e-5)
        assert (np.array(gains) < 0).all() == (key == "i")  # as docs/results.md says
    table = pd.read_csv(PAPER / "tables/ablations.csv").set_index("session")
    outliving = holm(table["p"].dropna()) < 0.05
    assert table["p"].dropna().index[outliving].tolist() == ["random-weights"]


def line_of(page, first):
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {first}"))
    return line


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_show_the_sessions_as_the_tables_have_them(page):
    seeds = pd.read_csv(PAPER / "tables/seeds.csv").set_index("session")
    for row in pd.read_csv(PAPER / "tables/summary.csv").itertuples():
        shown = [row.published, row.augmented, row.clean]
        if row.session in seeds.index:
            several = seeds.loc[row.session]
            shown += several[["augmented", "augmented_seed_sd", "clean", "clean_sd"]].tolist()
        line = line_of(page, f"`{row.session}`")
        assert [text for text in map(decimal, shown) if text not in line] == []
        assert whole(row.train_seconds) in line


def test_the_results_page_shows_claims_and_ablations_as_the_tables_have_them():
    for row in pd.read_csv(PAPER / "tables/claims.csv").itertuples():
        said = row.holm_verdict if row.evidence == OURS else row.verdict
        assert math.isnan(row.value) or (
            row.result in (line := line_of(PAGES[1], f"{row.key} |")) and said in line
        ), row
    for row in pd.read_csv(PAPER / "tables/ablations.csv").itertuples():
        assert decimal(row.clean) in line_of(PAGES[1], f"`{row.session}`")
