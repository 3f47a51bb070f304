import hashlib
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from flowerlib.data import photos as dataset
from flowerlib.data.decoding import MAX_BYTES
from flowerlib.data.download import ManifestRow, read_manifest
from flowerlib.data.listing import list_files
from flowerlib.data.photos import load_photos
from flowerlib.data.split import split_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment


def manifest_of(folder):
    return tuple(
        ManifestRow(
            file.relative_to(folder).as_posix(),
            file.stat().st_size,
            hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        for file in sorted(folder.glob("*/*.jpg"))
    )


# the set


def test_folder_of_class_folders_is_a_data_set(photo_folder):
    photos = load_photos(str(photo_folder))
    assert (photos.name, photos.root) == ("photos", photo_folder)
    assert photos.classes == ("aster", "broom", "clover")
    assert len(photos) == 24
    assert photos.paths == tuple(sorted(photos.paths))
    assert photos.labels.dtype == np.int64
    assert [photos.classes[label] for label in photos.labels] == [p.split("/")[0] for p in photos.paths]


def test_labels_follow_their_paths_where_a_class_name_begins_another(photo_folder):
    (photo_folder / "aster").rename(photo_folder / "broom b")  # 'broom b/' sorts before 'broom/'
    photos = load_photos(str(photo_folder))
    assert photos.classes == ("broom", "broom b", "clover")
    assert [photos.classes[label] for label in photos.labels] == [p.split("/")[0] for p in photos.paths]


def test_other_files_are_left_out(photo_folder):
    for path in ("notes.txt", "aster/notes.txt", "aster/.hidden.jpg", ".git/x.jpg", "aster/deep.jpg/x.jpg"):
        (photo_folder / path).parent.mkdir(exist_ok=True)
        (photo_folder / path).write_text("no photo")
    shutil.copy(photo_folder / "aster/0.jpg", photo_folder / "aster/upper.JPEG")
    photos = load_photos(str(photo_folder))
    assert photos.classes == ("aster", "broom", "clover")
    assert len(photos) == 25
    assert "aster/upper.JPEG" in photos.paths


def test_fingerprint_tells_bytes_and_names(photo_folder):
    before = load_photos(str(photo_folder)).fingerprint
    assert load_photos(str(photo_folder)).fingerprint == before
    (photo_folder / "aster/0.jpg").rename(photo_folder / "aster/00.jpg")
    renamed = load_photos(str(photo_folder)).fingerprint
    shutil.copy(photo_folder / "aster/1.jpg", photo_folder / "aster/2.jpg")
    assert len({before, renamed, load_photos(str(photo_folder)).fingerprint}) == 3


def test_folder_called_like_ours_gets_a_name_of_its_own(photo_folder):
    for name in ("flowers", "synthetic"):
        photo_folder = photo_folder.rename(photo_folder.parent / name)
        assert load_photos(str(photo_folder)).name == f"own-{name}"


def test_synthetic_photos_are_written_once(photo_folder, tmp_path, monkeypatch):
    calls = []

    def write_synthetic(folder):
        calls.append(folder)
        shutil.copytree(photo_folder, folder)

    monkeypatch.setattr(dataset, "DATA", tmp_path / "data")
    monkeypatch.setattr("flowerlib.data.synthetic.write_synthetic", write_synthetic)
    assert load_photos("synthetic").name == "synthetic"
    assert load_photos("synthetic").root == tmp_path / "data/synthetic"
    assert load_photos(str(tmp_path / "data/synthetic")).name == "synthetic"
    assert calls == [tmp_path / "data/synthetic"]


def test_flowers_are_fetched_once_where_no_folder_is_named(photo_folder, tmp_path, monkeypatch):
    calls = []

    def fetch(folder):
        calls.append(folder)
        shutil.copytree(photo_folder, folder)

    monkeypatch.setattr(dataset, "DATA", tmp_path / "data")
    monkeypatch.setattr(dataset, "fetch_flowers", fetch)
    monkeypatch.setattr(dataset, "read_manifest", lambda: manifest_of(photo_folder))
    assert load_photos("flowers").name == load_photos("flowers").name == "flowers"
    assert calls == [tmp_path / "data/flowers"]


def test_variable_names_the_flowers_folder(photo_folder, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_DATA", str(photo_folder))
    monkeypatch.setattr(dataset, "read_manifest", lambda: manifest_of(photo_folder))
    photos = load_photos("flowers")
    assert (photos.name, photos.root) == ("flowers", photo_folder)


def test_flowers_that_are_not_quite_the_papers_are_told(photo_folder, monkeypatch, capsys):
    monkeypatch.setenv("FLOWERLIB_DATA", str(photo_folder))
    manifest = manifest_of(photo_folder)
    monkeypatch.setattr(dataset, "read_manifest", lambda: manifest)
    (photo_folder / "aster/0.jpg").unlink()
    shutil.copy(photo_folder / "aster/1.jpg", photo_folder / "aster/2.jpg")
    load_photos("flowers")
    assert re.search("22 photos as .* 1 missing, 1 changed, 0 extra", capsys.readouterr().out)


def test_real_flowers(flowers_folder, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_DATA", str(flowers_folder))
    photos = load_photos("flowers")
    assert photos.classes == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert np.bincount(photos.labels).tolist() == [588, 556, 583, 536, 585]
    parts = split_photos(photos, Experiment())
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (2278, 570, 0)
    assert parts.fingerprint == "477f697343252825e53a12b27277cad8201584fdc04554e9c49f91eb4ddaae9a"


def test_manifest_is_the_papers():
    manifest = read_manifest()
    assert len(manifest) == 2848
    assert sum(row.bytes for row in manifest) == 155_290_539
    assert len({row.sha256 for row in manifest}) == 2844


# bad input


def test_all_unreadable_photos_are_named_before_any_training(photo_folder):
    (photo_folder / "aster/0.jpg").write_text("no photo")
    broken = photo_folder / "broom/1.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    (photo_folder / "clover/2.jpg").write_bytes(b"")
    Image.fromarray(np.full((9, 9), 60000, np.uint16)).save(photo_folder / "clover/deep.png")
    with pytest.raises(UserError) as error:
        load_photos(str(photo_folder))
    for part in (
        "4 of 25",
        "skip_bad=true",
        "aster/0.jpg (not an image",
        "broom/1.jpg (the file is cut off",
        "clover/2.jpg",
    ):
        assert part in str(error.value)
    assert "clover/deep.png (more than 8 bits" in str(error.value)


@pytest.mark.parametrize("name", [b"aster/\xff.jpg", b"aster/a\x07.jpg", b"\xff"])
def test_names_that_no_table_can_hold_are_refused(photo_folder, name):
    path = os.fsencode(photo_folder) + b"/" + name
    try:
        os.mkdir(path) if name == b"\xff" else shutil.copy(photo_folder / "aster/0.jpg", path)
    except OSError:
        pytest.skip("this file system refuses such names itself")
    with pytest.raises(UserError, match=r"rename '.*\\"):
        load_photos(str(photo_folder))


def test_a_pipe_is_no_photo(photo_folder):
    os.mkfifo(photo_folder / "aster/00.jpg")
    (photo_folder / "aster/01.jpg").symlink_to("/dev/zero")
    listing = list_files(photo_folder)
    assert set(listing.unused) == {"aster/00.jpg", "aster/01.jpg"}
    assert len(listing.photos) == 24


def test_a_file_larger_than_any_photo_is_not_read(photo_folder):
    os.truncate(photo_folder / "aster/0.jpg", MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(UserError, match=r"1 of 24 .*aster/0.jpg \(357,913,941 bytes, more than"):
        load_photos(str(photo_folder))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "nowhere.*No such file"),
        ("~nobody-here/photos", "isn't known here"),
        ("loop", "Too many levels"),
        ("photos/aster/0.jpg", "Not a directory"),
        ("empty", "is empty"),
    ],
)
def test_a_source_that_is_not_a_folder_of_photos(photo_folder, monkeypatch, source, said):
    monkeypatch.chdir(photo_folder.parent)
    (photo_folder.parent / "loop").symlink_to("loop")
    (photo_folder.parent / "empty").mkdir()
    with pytest.raises(UserError, match=said):
        load_photos(source)


def test_photos_without_class_folders(photo_folder):
    parent = re.escape(str(photo_folder))
    with pytest.raises(UserError, match=rf"no class folder.*at least two.*Did you mean {parent}\?"):
        load_photos(str(photo_folder / "aster"))


@pytest.mark.parametrize("others", [(), ("notes",), ("broom", "notes")])
def test_class_folders_one_level_further_down(photo_folder, others):
    for name in ("flowers", *others):
        (photo_folder.parent / "download" / name).mkdir(parents=True)
    for folder in photo_folder.iterdir():
        folder.rename(photo_folder.parent / "download/flowers" / folder.name)
    with pytest.raises(UserError, match=r"Did you mean \S*download/flowers\?$"):
        load_photos(str(photo_folder.parent / "download"))


def test_what_the_system_adds_is_neither_a_class_nor_a_photo(photo_folder, capsys):
    photos = list_files(photo_folder)
    for name in ("__MACOSX", ".ipynb_checkpoints", "aster/.ipynb_checkpoints"):
        (photo_folder / name).mkdir()
        (photo_folder / name / "0.jpg").write_bytes(b"")
    for name in ("Thumbs.db", "aster/Thumbs.db", "aster/desktop.ini", "aster/._0.jpg"):
        (photo_folder / name).write_bytes(b"")
    listed = list_files(photo_folder)
    assert (listed.classes, listed.photos) == (photos.classes, photos.photos)
    load_photos(str(photo_folder))
    assert "left out" not in capsys.readouterr().out


def test_one_class_only(photo_folder):
    for name in ("broom", "clover"):
        shutil.rmtree(photo_folder / name)
    with pytest.raises(UserError, match=r"only the class folder 'aster'.*at least two"):
        load_photos(str(photo_folder))


def test_class_without_photos(photo_folder):
    (photo_folder / "dahlia").mkdir()
    (photo_folder / "dahlia/notes.txt").write_text("none yet")
    with pytest.raises(UserError, match="no photos: dahlia"):
        load_photos(str(photo_folder))


def test_variable_on_ones_own_photos_points_to_the_option(photo_folder, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_DATA", str(photo_folder))
    with pytest.raises(UserError, match="--data FOLDER"):
        load_photos("flowers")


# what a user is told


def test_what_is_left_out_is_counted_by_reason(photo_folder, capsys):
    for number in range(3):
        (photo_folder / "aster" / f"{number}.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (photo_folder / ".DS_Store").touch()
    load_photos(str(photo_folder))
    said = capsys.readouterr().out
    assert "left out: 3, such as aster/0.mov: not a photo that is read here (.mov)" in said
    assert ".DS_Store" not in said


def test_links_are_followed_once(photo_folder):
    shutil.move(photo_folder / "aster", photo_folder.parent / "elsewhere")
    (photo_folder / "aster").symlink_to(photo_folder.parent / "elsewhere")
    (photo_folder / "broom/back").symlink_to(photo_folder)
    (photo_folder / "circle").symlink_to("circle")
    listing = list_files(photo_folder)
    assert listing.classes == ("aster", "broom", "clover")
    assert len(listing.photos) == 24
    assert listing.unused == {"broom/back": "a folder within a class folder", "circle": "not in a class folder"}


# photos that a user leaves out


def test_listed_photos_are_left_out(photo_folder, tmp_path, capsys):
    (tmp_path / "exclude.txt").write_text("# wrong labels\naster/0.jpg\n\nclover/3.jpg\n")
    photos = load_photos(str(photo_folder), exclude=str(tmp_path / "exclude.txt"))
    assert len(photos) == 22
    assert photos.skipped == dict.fromkeys(("aster/0.jpg", "clover/3.jpg"), "listed in exclude.txt")
    assert "2 photos are left out because" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"), [(None, "No such file"), ("aster/0.jpg\naster/0.jgp\n", r"not there: aster/0\.jgp\. Write")]
)
def test_a_list_that_cannot_be_meant(photo_folder, tmp_path, text, said):
    if text:
        (tmp_path / "exclude.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        load_photos(str(photo_folder), exclude=str(tmp_path / "exclude.txt"))
