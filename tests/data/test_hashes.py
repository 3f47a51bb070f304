"""Photos are read once: what is remembered about their files, and when it isn't trusted."""

import os
import shutil

import PIL
import pytest

from flowerlib.cli import main
from flowerlib.data import hashes
from flowerlib.data import photos as dataset
from flowerlib.data.photos import load_photos


@pytest.fixture
def read(monkeypatch):
    """The names of the original files that are read, as they are."""
    names, read_bytes = [], dataset.read_bytes
    monkeypatch.setattr(dataset, "read_bytes", lambda file: (names.append(file.name), read_bytes(file))[1])
    return names


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once: the tests' photos have only just been written."""
    monkeypatch.setattr(hashes, "SETTLED", 0)


@pytest.mark.usefixtures("settled")
def test_a_second_session_reads_no_original(photo_folder, read):
    first = load_photos(str(photo_folder))
    assert len(read) == 48  # hashed, then decoded
    again = load_photos(str(photo_folder))
    assert len(read) == 48
    assert (again.fingerprint, again.hashes, again.paths) == (first.fingerprint, first.hashes, first.paths)


@pytest.mark.usefixtures("settled")
def test_a_changed_photo_is_noticed_whatever_its_size_and_date_say(photo_folder, read):
    before = load_photos(str(photo_folder))
    photo = photo_folder / "aster/0.jpg"
    content, status = photo.read_bytes(), photo.stat()
    photo.write_bytes(content[:14] + bytes([content[14] ^ 1]) + content[15:])  # JPEG's density, which nobody reads
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    read.clear()
    assert load_photos(str(photo_folder)).fingerprint != before.fingerprint
    assert read.count("0.jpg") == 4  # hashed; then all three of that name are decoded


@pytest.mark.usefixtures("settled")
def test_new_and_removed_photos_are_noticed(photo_folder, read):
    load_photos(str(photo_folder))
    shutil.copy(photo_folder / "aster/0.jpg", photo_folder / "aster/new.jpg")
    (photo_folder / "broom/1.jpg").unlink()
    photos = load_photos(str(photo_folder))
    assert "aster/new.jpg" in photos.paths
    assert "broom/1.jpg" not in photos.paths
    assert read.count("new.jpg") == 2


def test_what_changed_a_moment_ago_is_not_trusted(photo_folder, read):
    load_photos(str(photo_folder))
    read.clear()
    load_photos(str(photo_folder))
    assert len(read) == 24


@pytest.mark.usefixtures("settled")
def test_the_audit_reads_anew(photo_folder, read):
    for _ in range(2):
        read.clear()
        assert main(["data", "--data", str(photo_folder)]) == 0
        assert len(read) == 24
    load_photos(str(photo_folder))
    assert len(read) == 24 + 24  # known from the audit: decoded, but not hashed again


@pytest.mark.usefixtures("settled")
def test_only_bad_photos_are_decoded_again_to_leave_them_out(photo_folder, read):
    (photo_folder / "aster/bad.jpg").write_text("no photo")
    first = load_photos(str(photo_folder), skip_bad=True)
    for _ in range(2):
        read.clear()
        again = load_photos(str(photo_folder), skip_bad=True)
        assert read == ["bad.jpg"]
        assert again.skipped == first.skipped != {}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[]",
        f'{{"pillow": "{PIL.__version__}", "files": {{"aster/0.jpg": 3}}}}',
    ],
)
def test_a_damaged_memory_is_no_memory(photo_folder, content):
    before = load_photos(str(photo_folder))
    hashes._memory_file(photo_folder).write_text(content)
    assert load_photos(str(photo_folder)).hashes == before.hashes


@pytest.mark.usefixtures("settled")
def test_another_pillow_looks_for_itself(photo_folder, read, monkeypatch):
    load_photos(str(photo_folder))
    read.clear()
    monkeypatch.setattr(PIL, "__version__", "0.1")
    load_photos(str(photo_folder))
    assert len(read) == 24 + 24


@pytest.mark.usefixtures("settled")
def test_where_nothing_can_be_remembered_the_photos_are_read_again(photo_folder, read):
    hashes._memory_file(photo_folder).mkdir()
    for _ in range(2):
        load_photos(str(photo_folder))
    assert len(read) == 24 + 24 + 24
