import hashlib
import shutil

import pytest

from flowerlib.data import audit as module
from flowerlib.data.audit import NO_PHOTO, TWICE, TWO_LABELS, UNREADABLE, audit, print_audit
from flowerlib.data.download import ManifestRow, read_manifest
from flowerlib.data.photos import load_photos
from flowerlib.errors import UserError


def files_of(problems, kind):
    return [problem.files for problem in problems if problem.kind == kind]


def test_clean_folder_has_no_problems(photo_folder):
    result = audit(photo_folder)
    assert result.counts == {"aster": 8, "broom": 8, "clover": 8}
    assert result.problems == ()
    assert result.usable
    assert "24 readable photos in 3 classes" in str(result)
    assert "No problems." in str(result)


@pytest.mark.parametrize("name", ["label", "unsure"])
def test_a_class_named_as_a_column_is_not_usable(photo_folder, name):
    (photo_folder / "broom").rename(photo_folder / name)
    assert not audit(photo_folder).usable
    with pytest.raises(UserError, match=f"rename the class folder '{name}'"):
        load_photos(str(photo_folder))


def test_every_problem_is_found(photo_folder):
    (photo_folder / "aster/0.jpg").write_text("no photo")
    broken = photo_folder / "aster/1.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    (photo_folder / "notes.txt").write_text("stray")
    (photo_folder / "broom/notes.txt").write_text("stray")
    (photo_folder / "broom/deep").mkdir()
    (photo_folder / "broom/.DS_Store").write_text("hidden")
    shutil.copy(photo_folder / "broom/0.jpg", photo_folder / "broom/copy.jpg")
    shutil.copy(photo_folder / "broom/1.jpg", photo_folder / "clover/other.jpg")

    result = audit(photo_folder)
    assert result.counts == {"aster": 6, "broom": 9, "clover": 9}
    assert files_of(result.problems, UNREADABLE) == [("aster/0.jpg",), ("aster/1.jpg",)]
    assert files_of(result.problems, NO_PHOTO) == [
        ("broom/.DS_Store",),
        ("broom/deep",),
        ("broom/notes.txt",),
        ("notes.txt",),
    ]
    assert files_of(result.problems, TWICE) == [("broom/0.jpg", "broom/copy.jpg")]
    assert files_of(result.problems, TWO_LABELS) == [("broom/1.jpg", "clover/other.jpg")]
    assert not result.usable
    for problem in result.problems:
        assert all(file in str(result) for file in problem.files)
        assert problem.reason in str(result)


def test_unreadable_copies_are_not_called_contradictions(photo_folder):
    for name in ("aster", "broom"):
        (photo_folder / name / "0.jpg").write_text("no photo")
    assert files_of(audit(photo_folder).problems, TWO_LABELS) == []


def test_difference_from_the_manifest(photo_folder):
    rows = [
        ManifestRow(
            f"aster/{name}.jpg", 0, hashlib.sha256((photo_folder / f"aster/{name}.jpg").read_bytes()).hexdigest()
        )
        for name in range(8)
    ]
    (photo_folder / "aster/0.jpg").unlink()
    shutil.copy(photo_folder / "aster/1.jpg", photo_folder / "aster/2.jpg")
    result = audit(photo_folder, rows)
    assert "6 photos as in the paper's data set, 1 missing, 1 changed, 16 extra." in str(result)


def test_the_exit_status_tells_whether_a_run_would_accept_the_photos(photo_folder, capsys):
    assert print_audit(str(photo_folder)) == 0
    assert "24 readable photos" in capsys.readouterr().out
    (photo_folder / "aster/0.jpg").write_text("no photo")
    assert print_audit(str(photo_folder)) == 1
    assert "A run would refuse" in capsys.readouterr().out


@pytest.mark.parametrize("classes", [["aster"], ["aster", "empty"]])
def test_what_a_run_would_refuse(photo_folder, classes):
    for name in ("broom", "clover"):
        shutil.rmtree(photo_folder / name)
    for name in classes:
        (photo_folder / name).mkdir(exist_ok=True)
    assert print_audit(str(photo_folder)) == 1


def test_flowers_without_any_of_the_papers(photo_folder, monkeypatch, capsys):
    monkeypatch.setenv("FLOWERLIB_DATA", str(photo_folder))
    assert print_audit("flowers") == 1
    assert "0 photos as in the paper's data set, 2,848 missing" in capsys.readouterr().out


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        audit(tmp_path / "nowhere")


def test_the_papers_photos(flowers_folder):
    result = audit(flowers_folder, read_manifest())
    assert sum(result.counts.values()) == 2848
    assert result.difference == module.Difference(same=2848, missing=0, changed=0, extra=0)
    assert len(result.problems) == 4
    assert all(
        [file.split("/")[0] for file in files] == ["rose", "tulip"] for files in files_of(result.problems, TWO_LABELS)
    )
    assert files_of(result.problems, TWICE) == [
        ("sunflower/14889392928_9742aed45b_m.jpg", "sunflower/15066430311_fb57fa92b0_m.jpg")
    ]
    assert result.usable


def test_what_the_split_does_to_rare_classes_and_to_copies_is_said(photo_folder):
    (photo_folder / "rare").mkdir()
    shutil.copy(photo_folder / "aster" / "0.jpg", photo_folder / "rare" / "0.jpg")
    for name in "bcdefg":
        shutil.copy(photo_folder / "aster" / "0.jpg", photo_folder / "aster" / f"0{name}.jpg")
    found = module.audit(photo_folder)
    assert "rare" in found.lacking["training"] + found.lacking["validation"]
    assert found.across > 0
    assert f"each side of the split: {found.across:,}" in str(found)
    assert "Classes without any photo for" in str(found)


@pytest.mark.parametrize("readable", [0, 1])
def test_problems_are_listed_also_where_nearly_nothing_can_be_read(photo_folder, readable):
    for photo in sorted(photo_folder.glob("*/*"))[readable:]:
        photo.write_text("no photo")
    found = audit(photo_folder)
    assert len(files_of(found.problems, UNREADABLE)) == 24 - readable
    assert not found.usable
