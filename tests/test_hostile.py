"""Files that a stranger can send: they give a result or are refused in one paragraph, and nothing in them is run."""

import gzip
import hashlib
import io
import os
import pickle
import stat
import tarfile
import tracemalloc
import warnings
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image
from torch import nn

from flowerlib.data import download
from flowerlib.data.download import ManifestRow, PartialDownload
from flowerlib.data.photos import inspect
from flowerlib.errors import UserError
from flowerlib.experiment import parse_override, read_experiments
from flowerlib.report.sources import title_page
from flowerlib.training.checkpoint import read_checkpoint
from flowerlib.training.model import build_model, load_weights


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def outcome(reader, *arguments):
    """What a reader makes of a file, or None if it refuses it in one paragraph; anything else fails the test."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            result = reader(*arguments)
        except (UserError, download._SourceError) as error:
            result, text = None, str(error)
        else:
            text = "fine"
    assert len(text.splitlines()) == 1
    assert len(text) < 20_000
    assert not [str(each.message) for each in said if "/torch/" not in each.filename]
    return result


@st.composite
def damaged(draw, content):
    """Bytes of which a few stretches, mostly short ones, are overwritten, removed, inserted or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.integers(0, 4) | st.integers(0, len(content))))
        new = draw(st.binary(max_size=4) | st.just(2 * content[begin:end]))
        content = content[:begin] + new + content[end:]
    return content


def _torch(tree):
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


# ---- weights


def tiny_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


@pytest.fixture(scope="module")
def _tiny_classifier():
    """In the place of any of torchvision's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowerlib.training.model.get_model", lambda name, num_classes: tiny_network())
        yield


def use_weights(folder, content):
    path = folder / "weights.pth"
    path.write_bytes(content)
    return build_model("resnet18", 4, load_weights(str(path), "resnet18"))(torch.ones(2, 3, 2, 2))


@cache
def weights():
    return _torch(dict(tiny_network().state_dict()))


@pytest.mark.usefixtures("_tiny_classifier")
@given(st.binary() | st.deferred(lambda: damaged(weights())))
def test_weights_files(place, content):
    logits = outcome(use_weights, place, content)
    assert logits is None or logits.shape == (2, 4)


@pytest.mark.usefixtures("_tiny_classifier")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.update({1: torch.zeros(1)}),
        lambda state: state.update({"0.bias": torch.zeros(3)}),
        lambda state: state.update({"0.bias": torch.zeros(2, device="meta")}),
        lambda state: state.pop("0.bias"),
    ],
)
def test_weights_with_a_wrong_part_are_refused(tmp_path, spoil):
    state = dict(tiny_network().state_dict())
    assert use_weights(tmp_path, _torch(state)).shape == (2, 4)
    spoil(state)
    with pytest.raises(UserError, match=r"weights\.pth"):
        use_weights(tmp_path, _torch(state))


# ---- photos


def _saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def photos():
    """A small photo in every format that is read, and in several kinds of each."""
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8))
    palette, exif = rgb.quantize(8), rgb.getexif()
    exif[0x0112] = 6
    return (
        _saved(rgb, "jpeg", exif=exif),
        _saved(rgb, "jpeg", progressive=True),
        _saved(rgb.convert("CMYK"), "jpeg"),
        _saved(rgb, "png", exif=exif),
        _saved(rgb.convert("1"), "png"),
        _saved(rgb.convert("LA"), "png"),
        _saved(palette, "png", transparency=b"\0\1"),
        _saved(palette, "gif", save_all=True, append_images=[palette]),
        _saved(rgb, "webp", exif=exif, save_all=True, append_images=[rgb]),
        _saved(rgb, "webp", lossless=True),
        _saved(rgb, "bmp"),
        _saved(palette, "bmp"),
        _saved(rgb, "tiff", exif=exif),
        _saved(rgb, "tiff", compression="tiff_lzw"),
        _saved(rgb, "tiff", compression="jpeg"),
        _saved(rgb.convert("CMYK"), "tiff", compression="tiff_deflate"),
    )


@given(st.binary() | st.deferred(lambda: st.sampled_from(photos()).flatmap(damaged)))
@example(b"II\x2a\x00\x00\x00\x00\x01")  # Pillow warns of its metadata
def test_photos(place, content):
    (place / "0.jpg").write_bytes(content)
    decoded = []
    (file,) = outcome(inspect, place, ["0.jpg"], decoded.append)
    if file.problem:
        assert len(file.problem.splitlines()) == 1
        assert len(file.problem) < 400
    else:
        assert [(pixels.dtype, pixels.ndim, pixels.shape[2]) for pixels in decoded] == [(np.uint8, 3, 3)]


def test_a_photo_that_is_a_program_is_not_run(tmp_path, monkeypatch):
    def run(*arguments, **options):
        raise AssertionError("Ghostscript would have been run")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    (tmp_path / "0.jpg").write_bytes(_saved(Image.new("RGB", (9, 9)), "eps"))
    (file,) = inspect(tmp_path, ["0.jpg"], decoded=len)
    assert "not an image in any of the formats" in file.problem


# ---- archives

MEMBERS = {"rose/1.jpg": b"a photo", "tulip/2.jpg": b"another one"}
WANTED = [ManifestRow(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in MEMBERS.items()]


def _zip(method):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for path, data in MEMBERS.items():
            archive.writestr(path, data)
    return file.getvalue()


def _tar(form, prefix=""):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for path, data in MEMBERS.items():
            member = tarfile.TarInfo(prefix + path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def _gzip(content):
    return gzip.compress(content, 1, mtime=0)


ZIPS = [_zip(method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)]
TARS = [
    _tar(tarfile.USTAR_FORMAT),
    _tar(tarfile.PAX_FORMAT, "long/" * 60),
    _tar(tarfile.GNU_FORMAT, "long/" * 60),
]


def unpack(folder, content):
    (folder / "archive").write_bytes(content)
    photos = PartialDownload(folder / "photos", WANTED)
    download._unpack(folder / "archive", photos)
    return photos


def files_in(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if not file.is_dir()}


@given(
    st.binary()
    | st.sampled_from([*ZIPS, *map(_gzip, TARS)]).flatmap(damaged)
    | st.sampled_from(TARS).flatmap(damaged).map(_gzip)
)
@example(b"PK\x01\x02".ljust(46, b"\0") + b"PK\x05\x06" + bytes(8) + b"\x2e" + bytes(9))  # a member without a name
@example(ZIPS[0])
@example(_gzip(TARS[1]))
def test_archives(content):
    with TemporaryDirectory() as folder:
        folder = Path(folder)
        outcome(unpack, folder, content)
        written = files_in(folder)
    assert written.items() <= {f"photos/{path}": data for path, data in MEMBERS.items()}.items()


@pytest.mark.parametrize("content", [*ZIPS, *map(_gzip, TARS)])
def test_every_kind_of_archive_is_unpacked(tmp_path, content):
    assert not unpack(tmp_path, content).missing
    assert files_in(tmp_path / "photos") == MEMBERS


def _member(kind, size, name="x", link=""):
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member.tobuf(tarfile.GNU_FORMAT)


def test_a_member_of_negative_size_ends_the_archive(tmp_path, monkeypatch):
    found, next_member = [], tarfile.TarFile.next

    def count(archive):
        found.append(archive)
        assert len(found) < 9, "the archive goes round in a circle"
        return next_member(archive)

    monkeypatch.setattr(tarfile.TarFile, "next", count)
    with pytest.raises(download._SourceError, match="negative size"):
        unpack(tmp_path, _gzip(_member(tarfile.REGTYPE, 0) + _member(tarfile.REGTYPE, -512)))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_long_name_is_not_taken_into_memory(tmp_path, kind):
    content = _gzip(_member(kind, 32 << 20) + bytes(32 << 20))
    tracemalloc.start()
    with pytest.raises(download._SourceError, match="a header of 33,554,432 bytes"):
        unpack(tmp_path, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_what_a_member_of_no_known_kind_claims_to_hold_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_ARCHIVE", 1 << 20)
    with pytest.raises(download._SourceError, match="unpacks to more than"):
        unpack(tmp_path, _gzip(_member(b"Z", 1 << 21) + bytes(1 << 21)))


@pytest.mark.parametrize(
    "kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_devices_and_pipes_are_passed_over(tmp_path, kind):
    photos = unpack(tmp_path, _gzip(_member(kind, 0, "rose/1.jpg", "/etc/hostname") + TARS[0]))
    assert not photos.missing
    assert files_in(tmp_path / "photos") == MEMBERS
    photo = (tmp_path / "photos/rose/1.jpg").lstat()
    assert stat.S_ISREG(photo.st_mode)
    assert photo.st_nlink == 1


# ---- code


class Mine:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def as_experiments(folder, mine):
    (folder / "experiments.yaml").write_text(f"a: !!python/object/apply:os.mkdir [{mine.folder}]")
    read_experiments(folder / "experiments.yaml")


def as_override(folder, mine):
    parse_override(f"epochs=!!python/object/apply:os.mkdir [{mine.folder}]")


def as_title(folder, mine):
    (folder / "title.yaml").write_text(f"title: !!python/object/apply:os.mkdir [{mine.folder}]")
    title_page("", folder / "title.yaml")


def as_checkpoint(folder, mine):
    (folder / "last.pt").write_bytes(_torch({"model": mine}))
    read_checkpoint(folder / "last.pt")


def as_pickled_checkpoint(folder, mine):
    (folder / "last.pt").write_bytes(pickle.dumps(mine, protocol=2))
    read_checkpoint(folder / "last.pt")


def as_weights(folder, mine):
    use_weights(folder, _torch({"x": mine}))


def as_pickled_weights(folder, mine):
    use_weights(folder, pickle.dumps(mine, protocol=2))


@pytest.mark.parametrize(
    "read",
    [
        as_experiments,
        as_override,
        as_title,
        as_checkpoint,
        as_pickled_checkpoint,
        as_weights,
        as_pickled_weights,
    ],
)
def test_no_file_runs_code(tmp_path, read):
    mine = Mine(tmp_path / "made")
    pickle.loads(pickle.dumps(mine, protocol=2))
    mine.folder.rmdir()  # it would work
    with pytest.raises(UserError):
        read(tmp_path, mine)
    assert not mine.folder.exists()
