"""Which photos train, which validate, and which nobody looks at."""

import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerlib.cli import main
from flowerlib.data.photos import load_photos
from flowerlib.data.split import split_paths, split_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment

NO_PAIRS = pd.DataFrame({"first": [], "second": []}, dtype=str)


def paths_of(**counts):
    return sorted(f"{name}/{index:05}.jpg" for name, count in counts.items() for index in range(count))


def parts_of(paths, pairs=NO_PAIRS, **settings):
    return split_paths(paths, Experiment(**settings), lambda: pairs)


@given(n=st.integers(2, 3000), seed=st.integers(0, 2**32 - 1))
def test_a_split_is_complete_disjoint_and_the_same_again(n, seed):
    parts = parts_of(paths_of(daisy=n), split_seed=seed)
    assert len(parts.train) == int(0.8 * n)
    assert sorted([*parts.train, *parts.validation]) == list(range(n))
    assert np.array_equal(parts_of(paths_of(daisy=n), split_seed=seed).train, parts.train)


def test_a_split_is_the_same_on_every_machine():
    parts = parts_of(paths_of(daisy=10))
    assert parts.train.tolist() == [2, 8, 4, 9, 1, 6, 7, 3]
    assert parts.validation.tolist() == [0, 5]


def test_the_fingerprint_tells_seed_paths_and_sides():
    fingerprints = {parts_of(paths_of(daisy=n), split_seed=seed).fingerprint for n in (10, 11) for seed in (0, 1)}
    others = {
        parts_of(paths_of(daisy=10), **more).fingerprint
        for more in ({"test": 0.2}, {"folds": 2, "fold": 0}, {"folds": 2, "fold": 1})
    }
    assert len(fingerprints | others) == 7


@settings(max_examples=100)
@given(st.integers(5, 300), st.integers(5, 300), st.sampled_from([0.0, 0.2]), st.integers(0, 99))
def test_stratified_gives_each_side_its_share_of_every_class(asters, brooms, test, seed):
    paths = paths_of(aster=asters, broom=brooms)
    parts = parts_of(paths, split="stratified", test=test, split_seed=seed)
    for side in (parts.train, parts.validation, parts.test):
        share = len(side) / len(paths)
        found = sum(paths[index].startswith("aster") for index in side)
        assert abs(found - share * asters) < 1.6


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 49), st.integers(0, 49)), max_size=40), st.integers(0, 99))
def test_grouped_keeps_near_duplicates_on_one_side(pairs, seed):
    paths = paths_of(aster=50, broom=150)
    table = pd.DataFrame([(paths[a], paths[b]) for a, b in pairs], columns=["first", "second"], dtype=str)
    parts = parts_of(paths, table, split="grouped", test=0.2, split_seed=seed)
    side = {paths[index]: name for name in ("train", "validation", "test") for index in getattr(parts, name)}
    assert len(side) == len(paths)
    assert all(side[first] == side[second] for first, second in table.itertuples(index=False))
    assert len(parts.test) <= 40


def test_photos_set_aside_are_not_in_the_rest():
    paths = paths_of(daisy=100)
    parts = parts_of(paths, test=0.2)
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [64, 16, 20]
    assert sorted([*parts.train, *parts.validation, *parts.test]) == list(range(100))


@pytest.mark.parametrize("how", ["random", "stratified", "grouped"])
def test_each_photo_validates_in_one_fold(how):
    paths = paths_of(aster=40, broom=23)
    pairs = pd.DataFrame({"first": ["aster/00001.jpg"], "second": ["broom/00002.jpg"]})
    folds = [parts_of(paths, pairs, split=how, folds=5, fold=fold) for fold in range(5)]
    assert sorted(index for parts in folds for index in parts.validation) == list(range(63))
    for parts in folds:
        assert sorted([*parts.train, *parts.validation]) == list(range(63))
        assert 11 <= len(parts.validation) <= 14


def test_a_side_without_photos_is_an_error():
    with pytest.raises(UserError, match="leaves none for training"):
        parts_of(paths_of(aster=1, broom=1), test=0.5)
    with pytest.raises(UserError, match="leaves none for a test"):
        parts_of(paths_of(aster=20), test=0.01)


# a folder that its maker has split


@pytest.fixture
def split_folder(photo_folder, tmp_path):
    """The photos in train/, Valid/ and test/: five, two and one of each class."""
    for part, numbers in {"train": range(5), "Valid": range(5, 7), "test": range(7, 8)}.items():
        for name in ("aster", "broom", "clover"):
            (tmp_path / "split" / part / name).mkdir(parents=True)
            for number in numbers:
                shutil.copy(photo_folder / name / f"{number}.jpg", tmp_path / "split" / part / name)
    return tmp_path / "split"


def names(photos, indices):
    return {photos.paths[index].split("/")[0] for index in indices}


def test_the_makers_split_is_kept_and_said(split_folder, capsys):
    photos = load_photos(str(split_folder))
    parts = split_photos(photos, Experiment())
    assert "Valid/, test/ and train/: this split is kept" in capsys.readouterr().out
    assert photos.classes == ("aster", "broom", "clover")
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [15, 6, 3]
    assert (names(photos, parts.train), names(photos, parts.validation)) == ({"train"}, {"Valid"})
    assert names(photos, parts.test) == {"test"}
    assert main(["data", "--data", str(split_folder)]) == 0
    assert "Valid/, test/ and train/: this split is kept" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"split": "random"}, {"split": "stratified"}, {"folds": 3, "fold": 1}])
def test_another_split_of_it_leaves_the_test_alone(split_folder, changes):
    photos = load_photos(str(split_folder))
    parts = split_photos(photos, Experiment(**changes))
    assert len(parts.train) + len(parts.validation) == 21
    assert names(photos, [*parts.train, *parts.validation]) == {"train", "Valid"}
    assert len(parts.test) == (0 if "folds" in changes else 3)


def test_a_test_without_labels_is_left_out_aloud(split_folder, capsys):
    for photo in split_folder.glob("test/*/*"):
        photo.rename(split_folder / "test" / f"{photo.parent.name}{photo.name}")
    for folder in split_folder.glob("test/*/"):
        folder.rmdir() if folder.is_dir() else None
    (split_folder / "aster").mkdir()
    photos = load_photos(str(split_folder))
    said = capsys.readouterr().out
    assert "left out: 3, such as test/aster7.jpg: not in a class folder" in said
    assert "left out: 1, such as aster: beside Valid/, test/ and train/" in said
    assert len(split_photos(photos, Experiment()).test) == 0


def test_a_class_that_only_one_part_has(split_folder):
    (split_folder / "Valid/aster").rename(split_folder / "Valid/astre")
    with pytest.raises(UserError, match=r"Valid/ has class folders that train/ lacks: astre"):
        load_photos(str(split_folder))


def test_photos_are_not_set_aside_twice(split_folder):
    for how in ("auto", "random"):
        with pytest.raises(UserError, match="leave out test"):
            split_photos(load_photos(str(split_folder)), Experiment(test=0.2, split=how))


def test_classes_may_be_called_train_and_val(photo_folder):
    for old, new in (("aster", "train"), ("broom", "val"), ("clover", "test")):
        (photo_folder / old).rename(photo_folder / new)
    assert load_photos(str(photo_folder)).classes == ("test", "train", "val")
