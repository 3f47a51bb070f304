import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_up import changed, make_run, with_right

from flowerlib.data.listing import COLUMN_NAMES
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.files import REPORT
from flowerlib.report.grouping import group_seeds, pool_folds
from flowerlib.runs import (
    EpochMetrics,
    InputInfo,
    read_info,
    read_run,
    write_augmented,
    write_info,
    write_metrics,
    write_predictions,
    write_repeats,
)

CLASSES = ("aster", "broom")


def named(name, **settings):
    return dataclasses.replace(make_run("resnet18-bs32", **settings), name=name)


def test_seeds_of_a_session_are_put_together():
    runs = [
        named("slow-seed1", seed=1, curve=np.full(3, 0.6)),
        named("quick"),
        named("slow-seed0", curve=np.full(3, 0.4)),
    ]
    slow, quick = group_seeds(runs)
    assert (slow.name, slow.seeds) == ("slow", [0, 1])
    np.testing.assert_allclose(slow.metrics["val_aug_acc"], 0.5)
    np.testing.assert_allclose(slow.spread["val_aug_acc"], np.sqrt(0.02))
    assert slow.metrics["epoch"].tolist() == [0, 1, 2]
    assert slow.last("val_aug_acc").to_dict() == {0: 0.4, 1: 0.6}
    assert (quick.name, quick.seeds, quick.spread) == ("quick", [0], None)
    pd.testing.assert_frame_equal(quick.metrics, runs[1].metrics)


def test_one_seed_keeps_its_name_and_other_settings_stay_apart():
    assert [each.name for each in group_seeds([named("slow-seed4", seed=4)])] == ["slow-seed4"]
    apart = group_seeds([named("slow-seed0"), named("slow-seed1", seed=1, learning_rate=0.1)])
    assert [each.name for each in apart] == ["slow-seed0", "slow-seed1"]
    pairs = [named(f"slow-seed{seed}", seed=seed, learning_rate=0.1 if seed > 1 else 0.2) for seed in range(4)]
    named_seeds = [(each.name, each.seeds) for each in group_seeds(pairs)]
    assert named_seeds == [("slow-seed0", [0, 1]), ("slow-seed2", [2, 3])]
    assert [each.name for each in group_seeds([named("a"), named("b")])] == ["a", "b"]


def fold(number, right, photos, **more):
    run = named(f"own-fold{number}", folds=3, fold=number, curve=np.full(2, right / photos), photos=photos, **more)
    table = with_right(right, photos).assign(photo=[f"aster/{number}-{place}.jpg" for place in range(photos)])
    return changed(dataclasses.replace(run, predictions=table), split={"fingerprint": f"split{number}"})


def test_folds_are_put_together_as_if_one_network_had_seen_none_of_the_photos():
    alone = named("alone")
    runs = [fold(2, 30, 100), alone, fold(0, 80, 100), fold(1, 25, 50)]
    first, own = pool_folds(runs)
    assert first is alone
    assert (own.name, own.info.split.validation, own.info.settings.folds) == ("own", 250, 3)
    assert len(own.predictions) == own.predictions["photo"].nunique() == 250
    assert own.predictions["photo"].iloc[0] == "aster/0-0.jpg"
    assert own.metrics["val_aug_acc"].tolist() == pytest.approx([135 / 250] * 2)
    assert own.metrics["epoch"].tolist() == [0, 1]
    assert own.sides["aster/0-0.jpg"] != own.sides["aster/1-0.jpg"] == own.sides["aster/1-1.jpg"]
    assert own.metrics["train_seconds"].iloc[0] == pytest.approx(3 * runs[0].metrics["train_seconds"].iloc[0])
    assert len(own.info.earlier) == 2
    assert [each.name for each in group_seeds([own])] == ["own"]
    other = [fold(number, 10, 50, learning_rate=0.1) for number in range(3)]
    assert len(pool_folds([*runs, *other])) == 3


def test_folds_that_are_incomplete_or_of_another_number_are_left_out_aloud(capsys):
    assert pool_folds([fold(0, 80, 100), fold(2, 30, 100)]) == []
    assert "2 of 3 folds are finished: own" in capsys.readouterr().out
    of_four = changed(fold(1, 25, 50), settings={"folds": 4})
    assert pool_folds([fold(0, 80, 100), of_four, fold(2, 30, 100)]) == []


def test_how_often_each_photo_was_right_is_read_as_written(folder):
    assert read_run(folder).augmented is None  # format 1
    photos = read_run(folder).predictions["photo"].tolist()
    write_repeats(folder / "repeats.csv", [0.5, 1, 0])
    write_augmented(folder / "augmented.csv", photos, np.array([2, 1]))
    table = read_run(folder).augmented
    assert table.to_dict("list") == {"photo": photos, "correct": [2, 1]}


@pytest.mark.parametrize(
    ("photos", "correct", "said"),
    [
        (slice(None, None, -1), [1, 2], "photos of predictions.csv"),
        (slice(1), [3], "photos of predictions.csv"),
        (slice(None), [0, 4], "up to the number of repeats"),
        (slice(None), [2, 2], "mean of repeats.csv"),
    ],
)
def test_counts_that_are_not_the_runs_are_refused(folder, photos, correct, said):
    names = read_run(folder).predictions["photo"].tolist()[photos]
    write_repeats(folder / "repeats.csv", [0.5, 1, 0])
    write_augmented(folder / "augmented.csv", names, correct)
    with pytest.raises(UserError, match=said):
        read_run(folder)


def test_a_seed_that_is_there_twice_counts_once():
    (slow,) = group_seeds([named("slow"), named("slow-seed0"), named("slow-seed1", seed=1)])
    assert (slow.name, slow.seeds) == ("slow", [0, 1])


# ---- a run's folder


@pytest.fixture
def folder(tmp_path):
    """A finished run of three epochs, as training writes it."""
    run = changed(
        make_run("resnet18-bs32", curve=np.zeros(3), photos=2), dataset={"classes": dict.fromkeys(CLASSES, 5)}
    )
    write_info(tmp_path, run.info)
    values = dict.fromkeys(EpochMetrics.model_fields, 0.25)
    write_metrics(tmp_path / "metrics.csv", [EpochMetrics(**values | {"epoch": epoch}) for epoch in range(3)])
    photos = ["aster/1.jpg", "broom/1.jpg"]
    write_predictions(tmp_path / "predictions.csv", photos, np.arange(2), np.tile([0.25, 0.75], (2, 1)), CLASSES)
    return tmp_path


def test_what_training_writes_is_read_again(folder):
    run = read_run(folder)
    assert (run.classes, run.repeats, run.info.settings.epochs) == (list(CLASSES), (), 3)
    assert run.metrics["epoch"].tolist() == [0, 1, 2]
    assert (run.metrics.drop(columns="epoch") == 0.25).all(axis=None)
    assert run.predictions["broom"].tolist() == [0.75, 0.75]


@pytest.mark.parametrize(
    ("name", "good", "bad", "said"),
    [
        ("run.json", "{", "", r"run\.json can't be read"),
        ("run.json", '"finished": true', '"finished": "yes"', "finished"),
        ("run.json", '"commit"', '"commitment"', "commit"),
        ("run.json", '"name": "made-up"', '"name": "\\u0007"', "dataset.name"),
        ("run.json", '"aster": 5', '"aster": null', "dataset.classes"),
        ("run.json", '"source": "imagenet"', '"source": "moon"', "weights.source"),
        ("run.json", '"earlier": []', '"earlier": [3]', "earlier"),
        ("run.json", '"flip": 0.1', '"flip": "often"', "flip must be a number"),
        ("run.json", '"flip": 0.1', '"flop": 0.1', "no setting 'flop'"),
        ("run.json", '"epochs": 3', '"epochs": 4', r"metrics\.csv .* 4 epochs"),
        ("metrics.csv", "\n1,0.25", "\n1,fast", "could not convert"),
        ("metrics.csv", "\n1,0.25", "\n1,nan", "metrics"),
        ("metrics.csv", "\n1,0.25,0.25", "\n1,0.25,1e300", "train_loss"),
        ("metrics.csv", "\n1,", "\n0,", "each of 3 epochs"),
        ("metrics.csv", "train_loss", "loss", "its columns must be"),
        ("metrics.csv", "\n1,", "\n1,1,", "Expected 10 fields"),
        ("predictions.csv", "jpg,aster", "jpg,rose", "must have a label"),
        ("predictions.csv", "0.75\n", "7.5\n", "probabilities"),
        ("predictions.csv", "0.75\n", "\n", "could not convert"),
        ("predictions.csv", "aster,broom\n", "aster,rose\n", "its columns must be"),
        ("predictions.csv", "broom/1.jpg,broom,0.25,0.75\n", "", "each of 2 photos"),
    ],
)
def test_a_run_with_a_wrong_part_is_refused_by_the_part(folder, name, good, bad, said):
    content = (folder / name).read_text()
    assert good in content
    (folder / name).write_text(content.replace(good, bad, 1))
    with pytest.raises(UserError, match=said):
        read_run(folder)


def test_a_run_from_before_a_setting_was_added_has_its_default(folder):
    info = json.loads((folder / "run.json").read_text())
    del info["settings"]["skip_bad"]
    (folder / "run.json").write_text(json.dumps(info))
    assert read_run(folder).info.settings == Experiment(epochs=3)


def test_both_formats_of_run_json_are_read(folder):
    old = read_info(REPORT / "results" / "parity" / "float32-seed0")
    assert (old.format, old.input, old.draws, old.model, old.test) == (1, InputInfo(), 1, None, None)
    new = {
        "format": 2,
        "model": {"parameters": 11, "trained": 5, "multiply_adds": 7},
        "input": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        "draws": 2,
        "peak_memory": 1600.5,
        "calibration": {"temperature": 1.5, "unsure_below": 0.4, "error_before": 0.1, "error_after": 0.05},
        "test": {"photos": 9, "correct": 8, "loss": 0.5},
    }
    (folder / "run.json").write_text(json.dumps(json.loads((folder / "run.json").read_text()) | new))
    info = read_run(folder).info
    assert info.input.mean == (0.5, 0.5, 0.5)
    assert (info.model.multiply_adds, info.calibration.temperature, info.test.correct) == (7, 1.5, 8)
    write_info(folder, info)
    assert read_info(folder) == info


CLASS_NAMES = st.lists(
    st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=5).filter(
        lambda name: name not in COLUMN_NAMES
    ),
    min_size=2,
    max_size=4,
    unique=True,
)


@given(CLASS_NAMES)
@example(["0", "00"])
@example(["NA", "a.1", '"', " ,"])
def test_any_class_names_come_back_from_a_runs_tables(folder_of_names, classes):
    run = make_run("resnet18-bs32", curve=np.zeros(3), photos=len(classes))
    write_info(folder_of_names, changed(run, dataset={"classes": dict.fromkeys(classes, 3)}).info)
    values = dict.fromkeys(EpochMetrics.model_fields, 0.25)
    write_metrics(folder_of_names / "metrics.csv", [EpochMetrics(**values | {"epoch": epoch}) for epoch in range(3)])
    photos = [f"{name}/{name}.jpg" for name in classes]
    labels, probabilities = np.arange(len(classes)), np.eye(len(classes))
    write_predictions(folder_of_names / "predictions.csv", photos, labels, probabilities, classes)
    run = read_run(folder_of_names)
    assert (run.classes, list(run.predictions["label"])) == (classes, classes)
    assert list(run.predictions["photo"]) == photos
    np.testing.assert_array_equal(run.predictions[classes], probabilities)


@pytest.fixture(scope="module")
def folder_of_names(tmp_path_factory):
    return tmp_path_factory.mktemp("names")


def test_seeds_added_later_with_another_spelling_belong_to_their_session(tmp_path):
    runs = [
        named("slow-seed0", data="photos"),
        named("slow-seed1", seed=1, data="/my/photos", repeats=5, device="cpu"),
    ]
    (slow,) = group_seeds(runs)
    assert (slow.name, slow.seeds) == ("slow", [0, 1])
