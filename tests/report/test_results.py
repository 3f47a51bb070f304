"""The tables behind the report's sentences."""

import dataclasses

import numpy as np
import pytest
from made_up import PHOTOS, changed, make_run, with_right

from flowerlib.data.photos import paper_fingerprint
from flowerlib.files import REPORT
from flowerlib.report import results, sources
from flowerlib.report.grouping import Session
from flowerlib.report.paper.published import SESSIONS
from flowerlib.report.statistics import wilson
from flowerlib.runs import CalibrationInfo, Device, HeldOutInfo


def session(name="resnet18-bs32", repeats=(), photos="the paper's", **settings):
    run = make_run(name, **settings)
    if photos == "the paper's":
        run = changed(run, dataset={"fingerprint": paper_fingerprint()})
    columns = {"train_acc": 0.9, "train_loss": 0.3, "val_aug_loss": 0.4, "val_seconds": 2.0}
    metrics = run.metrics.assign(**columns)
    return Session(name, (type(run)(run.name, run.folder, run.info, metrics, run.predictions, tuple(repeats)),))


@pytest.fixture
def three():
    return [
        session(repeats=[0.5, 0.7]),
        session("resnet18-bs64", table=with_right(800), clean=np.full(20, 0.8)),
        session("resnet34-bs32", seconds=20.0, clean=np.full(20, 0.95)),
    ]


def test_the_summary_gives_the_mean_of_repeats_and_ratios_of_medians(three):
    table = results.summary(three)
    assert table["label"].tolist() == ["ResNet-18 (batch size 32)", "ResNet-18 (batch size 64)", "ResNet-34"]
    assert table["augmented"].iloc[0] == pytest.approx(0.6)
    assert table["augmented_sd"].iloc[0] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert table["published"].tolist() == [0.911, 0.895, 0.916]
    assert table["time_ratio"].tolist() == pytest.approx([1, 1, 2], rel=0.02)
    shown = results.shown_summary(table)
    assert shown["Published"].tolist() == [".911", ".895", ".916"]
    assert shown["Augmented"].iloc[0] == ".600 ± .141"
    assert "Seeds" not in shown


def test_times_of_another_machine_are_not_set_in_a_ratio(three):
    there = changed(three[2].runs[0], device=Device(type="cpu", name="there", threads=2))
    ratios = results.summary([*three[:2], Session("resnet34-bs32", (there,))])["time_ratio"]
    assert ratios.isna().tolist() == [False, False, True]


def test_what_nothing_was_chosen_by_stands_first(three):
    tested = [
        Session(each.name, (changed(each.runs[0], test=HeldOutInfo(photos=50, correct=right, loss=0.5)),))
        for each, right in zip(three, (40, 30, 20), strict=True)
    ]
    table = results.summary(tested)
    assert table["test"].tolist() == [0.8, 0.6, 0.4]
    shown = results.shown_summary(table)
    assert list(shown)[:2] == ["Session", "Test [95 % interval]"]
    assert shown.iloc[0, 1] == ".800 [.670, .888]"
    assert "Test [95 % interval]" not in results.shown_summary(results.summary(three))


def test_where_classes_are_unequal_their_mean_and_the_smallest_are_shown():
    run = changed(session(table=with_right(900)).runs[0], dataset={"classes": {"aster": 500, "broom": 100}})
    few = run.predictions.copy()
    few.loc[:99, "label"] = "broom"  # all of which are taken for asters
    table = results.summary([Session("own", (dataclasses.replace(run, predictions=few),))])
    assert table["smallest"].iloc[0] == 0
    assert table["balanced"].iloc[0] == pytest.approx((800 / 900 + 0) / 2)
    shown = results.shown_summary(table, unequal=True)
    assert (shown["Balanced"].iloc[0], shown["Smallest class"].iloc[0]) == (".444", ".000")
    assert "Balanced" not in results.shown_summary(table)


def test_an_overview_has_intervals_of_one_seed_and_of_several(three):
    seeds = Session("own", tuple(session(seed=seed, clean=np.full(20, 0.8 + seed / 10)).runs[0] for seed in (0, 1)))
    table = results.overview(results.summary([three[0], seeds]))
    assert table["value"].tolist() == pytest.approx([three[0].last("val_acc").iloc[0], 0.85])
    one, several = table[["low", "high"]].to_numpy()
    assert one == pytest.approx([0.880, 0.917], abs=0.001)  # Wilson's of 900 of 1,000
    assert several == pytest.approx([0.85 - 12.706 * 0.05, 0.85 + 12.706 * 0.05], abs=0.001)


def test_other_sessions_are_not_set_beside_the_papers():
    own = [session(learning_rate=0.1, model="resnet50")]
    assert results.published_of(own[0], own) is None
    assert "Published" not in results.shown_summary(results.summary(own))
    assert list(results.curves(own[0], own)) == [""]


def test_another_network_stands_beside_the_first_in_the_papers_figure(three):
    rows = results.curves(three[2], three)
    assert {title: list(tables) for title, tables in rows.items()} == {
        "Published": ["ResNet-18 (batch size 32)", "ResNet-34"],
        "Ours": ["ResNet-18 (batch size 32)", "ResNet-34"],
    }
    assert list(results.curves(three[1], three)[""]) == ["ours", "published"]


def test_ablations_are_compared_with_the_first_and_corrected(three):
    worse = session(flip=0, table=with_right(700), clean=np.full(20, 0.7))
    same = session(rotation=0)
    ablations = [session(clean=np.full(20, 0.9)), Session("no-flip", worse.runs), Session("no-rotation", same.runs)]
    table = results.ablation_table(ablations)
    assert table["difference"].tolist()[1:] == pytest.approx([-0.2, 0])
    assert table["low"].iloc[1] < -0.2 < table["high"].iloc[1] < 0
    assert table["holm_p"].iloc[1] < 0.05 < table["holm_p"].iloc[2]
    assert results.corrected_ablations(table).startswith("no flip −.200 [")
    assert results.shown_ablations(table).iloc[0].tolist()[-1] == "–"


def test_the_numbers_of_one_networks_predictions(three):
    run = three[0].runs[0]
    numbers = results.overall(run)
    assert numbers.loc["accuracy", "value"] == pytest.approx(900 / PHOTOS)
    assert numbers.loc["confidence", "value"] == pytest.approx(0.9 * 0.9 + 0.1 * 0.8)
    assert results.shown_classes(run)["Class"].tolist() == ["aster", "broom"]
    best = CalibrationInfo(temperature=1.5, unsure_below=0.4, error_before=0.1, error_after=0.02)
    assert results.overall(changed(run, calibration=best))["value"].tolist()[3:] == [1.5, 0.1, 0.02]


def test_the_paper_is_judged_on_its_photos_only(three):
    assert sources.is_paper(three)
    assert not sources.is_paper([session(learning_rate=0.1, model="resnet50")])
    others = [session(photos="others")]
    assert not sources.is_paper(others)
    assert results.published_of(others[0], others) is None
    assert sources.is_reference(REPORT / "results" / "paper")
    assert not sources.is_reference(REPORT / "results")


def test_augmented_accuracy_is_the_mean_of_the_repeats_with_their_scatter():
    sessions = [
        session(seed=0, table=with_right(900), repeats=(0.8, 0.82, 0.84)),
        session(seed=1, table=with_right(910), repeats=(0.86, 0.86, 0.86)),
        session("resnet18-bs64"),
    ]
    *runs, single = (each.runs[0] for each in sessions)
    table = results.summary([Session("twice", tuple(runs)), Session("once", (single,))])
    twice = table.loc["twice"]
    assert twice["clean_low":"clean_high"].isna().all()  # they would be of one run
    assert (twice["augmented"], twice["augmented_sd"]) == pytest.approx((0.84, 0.02))
    assert (twice["seeds"], twice["evaluations"]) == (2, 3)
    assert table.loc["once", "augmented"] == single.metrics["val_aug_acc"].iloc[-1]
    assert table.loc["once", "evaluations"] == 0
    assert np.isnan(table.loc["once", "augmented_sd"])
    assert tuple(table.loc["once", ["clean_low", "clean_high"]]) == wilson(900, 1000)[1:]


def test_noise_of_the_late_epochs_and_of_repeated_evaluations():
    evaluations = [0.91, 0.93, 0.92, 0.94]
    table = results.noise(evaluations, photos=400)
    assert table.index.tolist() == [*SESSIONS, "repeated evaluation"]
    assert table["evaluations"].tolist() == [6, 6, 6, 4]
    # Table 1, epochs 14-19: .930 .907 .919 .921 .932 .911; steps .023 .012 .002 .011 .021
    first = table.loc["resnet18-bs32"]
    assert (first["mean"], first["mean_step"]) == pytest.approx((0.92, 0.069 / 5))
    assert first["sd"] == pytest.approx(np.sqrt((100 + 169 + 1 + 1 + 144 + 81) / 5) / 1000)
    assert first["binomial_sd"] == pytest.approx(np.sqrt(0.92 * 0.08 / 570))
    ours = table.loc["repeated evaluation"]
    assert ours["binomial_sd"] == pytest.approx(np.sqrt(0.925 * 0.075 / 400))
