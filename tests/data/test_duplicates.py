import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flowerlib.cli import main
from flowerlib.data import duplicates, similarity
from flowerlib.data.duplicates import (
    COLUMNS,
    FARTHEST,
    IDENTICAL,
    LEFT_OUT,
    PAIRS,
    SIMILAR,
    across_split,
    find_pairs,
    leaked,
    pairs_file,
    provide_pairs,
    read_pairs,
    under_two_labels,
    write_pairs,
)
from flowerlib.data.photos import load_photos
from flowerlib.errors import UserError

SCENES = 8
CONTRADICTIONS = ("17104364030_ee31ee279b", "17291451621_0e39f08b9e", "17291930305_79deae6a90")


def scene(seed):
    """A picture of its own with structure of every size, as photos have it: uint8 (240, 320, 3)."""
    random = np.random.default_rng(seed)
    octaves = [(random.standard_normal((3 * 2**k, 4 * 2**k, 3)), 0.6**k) for k in range(6)]
    picture = sum(weight * cv2.resize(field, (320, 240), interpolation=cv2.INTER_CUBIC) for field, weight in octaves)
    return np.clip(128 + 50 * picture, 0, 255).astype(np.uint8)


def cropped(picture, share):
    height, width, _ = picture.shape
    rows, columns = int(share * height), int(share * width)
    return picture[rows : height - rows, columns : width - columns]


def halved(picture):
    return cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def tinted(picture):
    return (picture * [1, 0.85, 0.6]).astype(np.uint8)


def all_at_once(picture):
    return cropped(halved(tinted(picture[:, ::-1])), 0.05)


COPIES = {
    "saved again": lambda picture: picture,
    "resized": halved,
    "cropped": lambda picture: cropped(picture, 0.05),
    "cropped on one side": lambda picture: picture[:, 16:],
    "mirrored": lambda picture: picture[:, ::-1],
    "grey": lambda picture: picture.mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8),
    "tinted": tinted,
    "all at once": all_at_once,
}


def save(folder, name, picture, quality=90):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(picture)).save(folder / name, quality=quality)


def search(photos):
    return find_pairs(photos.paths, photos.hashes, duplicates._squeezed(photos))


def pairs_of(folder):
    pairs = search(load_photos(str(folder)))
    return list(pairs[["kind", "first", "second"]].itertuples(index=False, name=None)), pairs


@pytest.fixture
def folder(tmp_path):
    """Scenes with nothing in common, in two classes."""
    for seed in range(SCENES):
        save(tmp_path / "photos", f"{'aster' if seed % 2 else 'broom'}/{seed}.jpg", scene(seed))
    return tmp_path / "photos"


def test_photos_with_nothing_in_common_are_not_a_pair(folder):
    found, pairs = pairs_of(folder)
    assert found == []
    assert tuple(pairs.columns) == COLUMNS


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_found_whatever_was_done_to_it(folder, change):
    save(folder, "broom/copy.jpg", COPIES[change](scene(3)), quality=30)
    found, pairs = pairs_of(folder)
    assert found == [(SIMILAR, "aster/3.jpg", "broom/copy.jpg")]
    assert 0 < pairs["distance"][0] <= FARTHEST


def test_each_of_several_identical_files_is_paired_with_the_first(folder):
    for name in ("broom/a.jpg", "aster/b.jpg"):
        shutil.copy(folder / "aster/3.jpg", folder / name)
    found, pairs = pairs_of(folder)
    assert found == [(IDENTICAL, "aster/3.jpg", "aster/b.jpg"), (IDENTICAL, "aster/3.jpg", "broom/a.jpg")]
    assert (pairs["distance"] == 0).all()


def test_identical_pairs_come_first_then_the_closest(folder):
    save(folder, "broom/far.jpg", cropped(halved(scene(1)), 0.05), quality=30)
    save(folder, "broom/near.jpg", tinted(scene(3)))
    shutil.copy(folder / "aster/5.jpg", folder / "broom/same.jpg")
    found, pairs = pairs_of(folder)
    assert [second for _, _, second in found] == ["broom/same.jpg", "broom/near.jpg", "broom/far.jpg"]
    assert pairs["distance"].is_monotonic_increasing


def test_photos_that_share_only_a_frame_are_not_a_pair(folder):
    for name, seed in (("aster/framed.jpg", 20), ("broom/framed.jpg", 21)):
        framed = cv2.copyMakeBorder(scene(seed), 30, 30, 30, 30, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        save(folder, name, framed)
    assert pairs_of(folder)[0] == []


@pytest.mark.filterwarnings("error")
def test_pictures_of_one_colour_are_a_pair_only_with_the_same_bytes(folder):
    for name, grey in (("white", 255), ("grey", 128), ("black", 0), ("again", 0)):
        save(folder, f"aster/{name}.png", np.full((40, 60, 3), grey, np.uint8))
    assert pairs_of(folder)[0] == [(IDENTICAL, "aster/again.png", "aster/black.png")]


def not_found(*_):
    raise cv2.error("no convergence")


def far_off(*_):
    return 1.0, np.array([[1, 0, 64], [0, 1, 0]], np.float32)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("align", [not_found, far_off])
def test_copies_that_can_not_be_aligned_are_compared_edge_on_edge(folder, align, monkeypatch):
    monkeypatch.setattr(similarity.cv2, "findTransformECC", align)
    save(folder, "broom/copy.jpg", tinted(scene(3)))
    assert pairs_of(folder)[0] == [(SIMILAR, "aster/3.jpg", "broom/copy.jpg")]


def test_the_order_of_the_photos_does_not_matter(folder):
    save(folder, "broom/copy.jpg", all_at_once(scene(3)))
    photos = load_photos(str(folder))
    order = np.random.default_rng(0).permutation(len(photos))
    paths, hashes = ([values[index] for index in order] for values in (photos.paths, photos.hashes))
    shuffled = find_pairs(paths, hashes, duplicates._squeezed(photos)[order])
    pd.testing.assert_frame_equal(shuffled, search(photos))


# the limits of the search


def frames(n, seed=0):
    """Pictures of one scene with a little noise, as a video camera on a tripod takes them: uint8 (n, 64, 64)."""
    noise = np.random.default_rng(seed).normal(0, 2, (n, 64, 64))
    return np.clip(similarity.squeeze(scene(seed)) + noise, 0, 255).astype(np.uint8)


def test_without_many_candidates_nothing_is_left_out(monkeypatch):
    monkeypatch.setattr(similarity, "MAX_COMPARISONS", 190)
    candidates, left_out = similarity.find_candidates(frames(20))
    assert candidates == [(first, second, 0) for first in range(20) for second in range(first + 1, 20)]
    assert left_out == 0


def test_the_closest_are_compared_where_there_are_too_many_and_the_rest_is_counted(monkeypatch):
    monkeypatch.setattr(similarity, "MAX_COMPARISONS", 50)
    monkeypatch.setattr(similarity, "CLOSEST", 3)
    pictures = np.concatenate([frames(40), frames(2, seed=1)])
    pictures[35] = pictures[30]
    candidates, left_out = similarity.find_candidates(pictures)
    assert len(candidates) == 50
    assert left_out == 40 * 39 / 2 + 1 - 50
    assert (30, 35, 0) in candidates
    assert max(np.bincount([first for first, _, _ in candidates])) <= 3


def test_a_group_of_equal_frames_does_not_take_all_comparisons(monkeypatch):
    monkeypatch.setattr(similarity, "MAX_COMPARISONS", 150)
    monkeypatch.setattr(similarity, "CLOSEST", 3)
    copy = np.clip(frames(1, seed=1) + np.random.default_rng(0).normal(0, 25, (1, 64, 64)), 0, 255)
    pictures = np.concatenate([frames(40), frames(1, seed=1), copy.astype(np.uint8)])
    assert (40, 41, 0) in similarity.find_candidates(pictures)[0]


@pytest.mark.parametrize("block", [1, 100, 1 << 23])
def test_blocks_do_not_change_the_candidates(monkeypatch, block):
    pictures = np.concatenate([frames(5, seed) for seed in range(6)])
    whole = similarity.find_candidates(pictures)
    monkeypatch.setattr(similarity, "_BLOCK", block)
    candidates, left_out = similarity.find_candidates(pictures)
    assert (sorted(candidates), left_out) == (sorted(whole[0]), whole[1])


def test_a_limited_search_says_so_and_the_table_keeps_it(folder, monkeypatch, capsys):
    monkeypatch.setattr(similarity, "MAX_COMPARISONS", 1)
    for index in range(3):
        save(folder, f"broom/copy{index}.jpg", scene(3), quality=80 + index)
    assert main(["data", "--data", str(folder)]) == 0
    photos = load_photos(str(folder))
    pairs = read_pairs(pairs_file(photos.fingerprint), photos.fingerprint)
    assert len(pairs) == 1
    assert (
        f"{pairs.attrs[LEFT_OUT]} pairs of photos that look somewhat alike were not compared"
        in capsys.readouterr().out
    )
    assert pairs.attrs[LEFT_OUT] >= 5


# the table


def test_the_photos_are_searched_once_whoever_asks_first(folder, tmp_path, monkeypatch, capsys):
    save(folder, "broom/copy.jpg", tinted(scene(3)))
    assert main(["data", "--data", str(folder)]) == 0
    assert "Near-duplicates: 1 pair (0 identical, 1 under two labels)." in capsys.readouterr().out
    photos = load_photos(str(folder))
    monkeypatch.setattr(duplicates, "find_pairs", None)
    provide_pairs(tmp_path / PAIRS, photos)
    assert str(tmp_path / PAIRS) in capsys.readouterr().out
    assert read_pairs(tmp_path / PAIRS, photos.fingerprint)["second"].tolist() == ["broom/copy.jpg"]
    pairs_file(photos.fingerprint).unlink()
    provide_pairs(tmp_path / PAIRS, photos)  # there already
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["kind,first,second,distance\n", f"# photos others, {LEFT_OUT} 0\n", "\xff"])
def test_a_table_for_other_photos_is_replaced(folder, tmp_path, text):
    (tmp_path / PAIRS).write_text(text, encoding="latin-1")
    photos = load_photos(str(folder))
    assert read_pairs(tmp_path / PAIRS, photos.fingerprint) is None
    provide_pairs(tmp_path / PAIRS, photos)
    assert read_pairs(tmp_path / PAIRS, photos.fingerprint).empty


def test_without_a_writable_cache_the_table_still_reaches_the_runs(folder, tmp_path, monkeypatch):
    photos = load_photos(str(folder))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FLOWERLIB_CACHE", str(tmp_path / "file" / "cache"))
    provide_pairs(tmp_path / PAIRS, photos)
    assert read_pairs(tmp_path / PAIRS, photos.fingerprint).empty


TABLE = pd.DataFrame(
    [
        (IDENTICAL, "rose/1.jpg", "tulip/2.jpg", 0.0),
        (IDENTICAL, "rose/3.jpg", "tulip/4, 5.jpg", 0.0),
        (SIMILAR, "rose/6.jpg", "rose/7.jpg", 0.1 + 0.2),
        (SIMILAR, "tulip/8.jpg", "tulip/9.jpg", 1 / 3),
    ],
    columns=COLUMNS,
)


@pytest.mark.parametrize("pairs", [TABLE, TABLE.iloc[:0]], ids=["four", "none"])
def test_pairs_are_read_as_they_were_written(pairs, tmp_path):
    pairs.attrs[LEFT_OUT] = 7
    write_pairs(tmp_path / "pairs.csv", pairs, "abc")
    found = read_pairs(tmp_path / "pairs.csv", "abc")
    assert found.to_dict("records") == pairs.to_dict("records")
    assert found.attrs == {LEFT_OUT: 7}
    assert read_pairs(tmp_path / "pairs.csv", "abd") is None
    assert read_pairs(tmp_path / "none.csv", "abc") is None
    across_split(found, {"rose/1.jpg": 0})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no table",
        "kind,first,second\nsimilar,a/1.jpg,a/2.jpg\n",
        "kind,first,second,distance\nsimilar,a/1.jpg,a/2.jpg,near\n",
        "kind,first,second,distance\nalike,a/1.jpg,a/2.jpg,0.1\n",
        "kind,first,second,distance\nsimilar,a/1.jpg,a/2.jpg,-0.1\n",
    ],
)
def test_a_damaged_table_is_refused_by_name(text, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(f"# photos abc, {LEFT_OUT} 0\n{text}")
    with pytest.raises(UserError, match=r"pairs\.csv can't be read"):
        read_pairs(path, "abc")


def test_pairs_across_the_split_have_a_photo_on_each_side():
    found = across_split(
        TABLE, dict.fromkeys(["rose/1.jpg", "rose/6.jpg", "rose/7.jpg", "tulip/9.jpg", "tulip/else.jpg"], 0)
    )
    assert found["first"].tolist() == ["rose/1.jpg", "tulip/8.jpg"]


def test_pairs_under_two_labels_are_in_two_class_folders():
    assert under_two_labels(TABLE)["first"].tolist() == ["rose/1.jpg", "rose/3.jpg"]


def test_leaked_photos_have_a_copy_in_training_or_two_labels():
    photos = ["tulip/9.jpg", "tulip/else.jpg", "rose/7.jpg", "rose/6.jpg", "tulip/4, 5.jpg", "rose/3.jpg"]
    predictions = pd.DataFrame({"photo": photos, "label": "any", "rose": 0.5, "tulip": 0.5})
    # 6 and 7 are copies of each other only; 3 and 4 both validate, under two labels
    assert leaked(TABLE, dict.fromkeys(predictions["photo"], 0)) == ["tulip/9.jpg", "tulip/4, 5.jpg", "rose/3.jpg"]


def test_what_leaks_through_one_of_several_identical_files():
    """Table: 2 and 3 are the files of 1, 5 that of 4, and 4 resembles 1."""
    rows = [(IDENTICAL, "a/1", "a/2", 0.0), (IDENTICAL, "a/1", "a/3", 0.0), (IDENTICAL, "a/4", "a/5", 0.0)]
    pairs = pd.DataFrame([*rows, (SIMILAR, "a/1", "a/4", 0.1)], columns=COLUMNS)

    def leaking(*validation, pairs=pairs):
        return leaked(pairs, dict.fromkeys(validation, 0))

    assert leaking("a/1", "a/2", "a/3", "a/4", "a/5", "a/6") == []
    assert leaking("a/1", "a/2", "a/6", pairs=pairs[:3]) == ["a/1", "a/2"]  # by 3
    assert leaking("a/2", "a/6", pairs=pairs[:3]) == ["a/2"]
    assert leaking("a/1", "a/2", "a/3", "a/5", "a/6") == ["a/1", "a/2", "a/3", "a/5"]  # by 4


def test_the_papers_photos(flowers_folder, tmp_path):
    """The three photos under two labels and the repeated one; among 250 photos, pairs that were looked at."""
    same = [(f"rose/{name}_n.jpg", f"tulip/{name}_n.jpg") for name in CONTRADICTIONS]
    same += [("sunflower/14889392928_9742aed45b_m.jpg", "sunflower/15066430311_fb57fa92b0_m.jpg")]
    edited = [
        ("dandelion/17161833794_e1d92259d2_m.jpg", "dandelion/18304194360_2a4a0be631_m.jpg"),
        ("dandelion/13734221225_0e04edc6b6.jpg", "dandelion/15358221063_2c6e548e84.jpg"),
        ("rose/4608559939_3487bf3b62_n.jpg", "rose/4609166128_b7ed49b40b_m.jpg"),
    ]
    alike = [("dandelion/15123503538_8ee984abc6.jpg", "dandelion/4632863567_5f9af7de97_n.jpg")]
    others = sorted(path.relative_to(flowers_folder).as_posix() for path in flowers_folder.glob("*/*.jpg"))[::12]
    for name in {*others, *(name for pair in (*same, *edited, *alike) for name in pair)}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(Path(flowers_folder, name))

    pairs = search(load_photos(str(tmp_path)))
    found = {kind: set(zip(rows["first"], rows["second"], strict=True)) for kind, rows in pairs.groupby("kind")}
    assert found[IDENTICAL] == set(same)
    assert found[SIMILAR] >= set(edited)
    assert len(found[SIMILAR]) < 10
    assert not found[SIMILAR] & set(alike)
    assert len(under_two_labels(pairs)) == 3


def test_copies_in_different_folds_leak():
    pairs = pd.DataFrame([("similar", "rose/1.jpg", "rose/2.jpg", 0.1)], columns=COLUMNS)
    for sides, found in (({"rose/1.jpg": 0, "rose/2.jpg": 1}, 1), ({"rose/1.jpg": 1, "rose/2.jpg": 1}, 0)):
        assert len(across_split(pairs, sides)) == found
        assert leaked(pairs, sides) == (["rose/1.jpg", "rose/2.jpg"] if found else [])
