"""What is read from a photo, and what its metadata may look like."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from flowerlib.data.decoding import JPEG_END, decode, kept_side, kept_size, looks_like_a_photo, photo_size

PICTURE = Image.fromarray(
    np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)).resize((88, 72)))
)


def saved(kind, **options):
    file = io.BytesIO()
    PICTURE.save(file, kind, **options)
    return file.getvalue()


def with_exif(jpeg, body):
    block = b"Exif\0\0" + body
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def with_chunk(png, kind, body):
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:33] + chunk + png[33:]


ORIENTED = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 2, 0x0112, 3, 1, 6, 0)
MEGABYTES = zlib.compress(bytes(3 << 20))
HUGE_TEXT = PngImagePlugin.PngInfo()
HUGE_TEXT.add_text("parameters", "x" * (3 << 20), zip=True)


@pytest.mark.parametrize(
    ("data", "turned"),
    [
        (with_exif(saved("JPEG"), ORIENTED + struct.pack("<HHII", 0x011A, 10, 1, 38) + bytes(4) + bytes(8)), True),
        (with_exif(saved("JPEG"), ORIENTED + struct.pack("<HHII", 0x010F, 5, 1, 38) + bytes(4) + bytes(8)), True),
        (with_exif(saved("JPEG"), b"II*\0" + b"\xff" * 40), False),
        (with_chunk(saved("PNG"), b"eXIf", b"\0\x08\0\x02" + bytes(30)), False),
        (with_chunk(saved("PNG"), b"iCCP", b"profile\0\0" + MEGABYTES), False),
        (with_chunk(saved("PNG"), b"iCCP", b"no profile"), False),
        (saved("PNG", pnginfo=HUGE_TEXT), False),
        (saved("WEBP", lossless=True, exif=b"Exif\0\0nothing", xmp=b"<x"), False),
    ],
    ids=["resolution", "make", "endless", "headerless", "large profile", "spoilt profile", "large text", "webp"],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_spoilt_metadata_do_not_cost_the_picture(data, turned):
    picture = decode(data, 800)
    assert picture.size == ((72, 88) if turned else (88, 72))
    expected = PICTURE.transpose(Image.Transpose.ROTATE_270) if turned else PICTURE
    assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).mean() < 5


def test_a_jpeg_may_lack_its_end_marker_and_no_more():
    whole = saved("JPEG")
    assert whole.endswith(JPEG_END)
    assert np.array_equal(decode(whole[:-2], 800), decode(whole, 800))
    for cut in (whole[: len(whole) // 2], saved("JPEG", progressive=True)[:-2]):
        with pytest.raises(OSError, match="cut off"):
            decode(cut, 800)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_photo_is_known_by_its_content(tmp_path, kind):
    for name in ("photo", "photo.HEIC", "photo.jfif", "photo.PNG"):
        (tmp_path / name).write_bytes(saved(kind))
        assert looks_like_a_photo(tmp_path / name)
    (tmp_path / "photo.NEF").write_bytes(saved(kind))
    assert not looks_like_a_photo(tmp_path / "photo.NEF")


@pytest.mark.parametrize(
    "content", [b"", b"BM text", b"RIFF    AVI LIST", b"GIF7", b"%PDF-1.7", b"\0\0\0\x14ftypqt  "]
)
def test_what_is_no_photo_is_not_taken_for_one(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert not looks_like_a_photo(tmp_path / "file")


# what phones write

# 64 × 48 pixels, red, green, blue and white fields; turned by 90° in the file, which says so to be turned back
TURNED_HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ADRpbG9jAAAAAERAAAIAAQAAAAAB7AABAAAAAAAAAFoAAgAAAAACRgABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAA"
    "AAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAA"
    "kAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq"
    "5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xh"
    "cAAAADAAAAABAAAAQAAAAAH////wAAAAAgAAAAAAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEA"
    "AQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAIZtZGF0AAAAVigBrwng48Calq/ss//+/EP/9FVTG74rdv1t3fqL"
    "fwupCocYwHNAgcLejr3t/WPz4qUdG//PSdjdX1vfWygdypNcC7Nqr/yBP/gF93xGv+oeM52yaQ+AAAAABkV4aWYAAE1NACoAAAAI"
    "AAEBEgADAAAAAQAGAAAAAAAA"
)


def upright():
    picture = Image.new("RGB", (64, 48), "white")
    for colour, left, top in (("red", 0, 0), ("lime", 32, 0), ("blue", 0, 24)):
        picture.paste(colour, (left, top, left + 32, top + 24))
    return picture


def turned_avif():
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    upright().transpose(Image.Transpose.ROTATE_90).save(file, "AVIF", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("data", [TURNED_HEIC, turned_avif()], ids=["heic", "avif"])
def test_heic_and_avif_are_read_upright_whatever_they_are_called(tmp_path, data):
    (tmp_path / "IMG_1.JPG").write_bytes(data)
    (tmp_path / "photo").write_bytes(data)
    assert looks_like_a_photo(tmp_path / "photo")
    picture = decode((tmp_path / "IMG_1.JPG").read_bytes(), 800)
    assert np.abs(np.asarray(picture, int) - np.asarray(upright(), int)).mean() < 8


def test_a_damaged_heic_is_unreadable():
    for end in (100, len(TURNED_HEIC) // 2, len(TURNED_HEIC) - 20):
        with pytest.raises(Exception, match="cannot identify"):
            decode(TURNED_HEIC[:end], 800)


@pytest.mark.parametrize(
    ("image_size", "size", "kept"),
    [
        (224, (4000, 3000), (1067, 800)),
        (40, (3000, 4000), (800, 1067)),
        (228, (4000, 3000), (1067, 800)),
        (300, (4000, 3000), (1400, 1050)),
        (224, (1024, 799), (1024, 799)),
        (224, (20_000, 10), (20_000, 10)),
    ],
)
def test_of_a_large_photo_what_training_can_use_is_kept(image_size, size, kept):
    assert kept_size(*size, kept_side(image_size)) == kept


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_reduced_photo_looks_as_the_whole_one_does(kind, orientation):
    waves = np.add.outer(np.arange(1500), 2 * np.arange(2000)) / 40
    whole = Image.fromarray((127 + 127 * np.sin(np.stack([waves, waves / 2, waves / 3], axis=2))).astype(np.uint8))
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    whole.save(file, kind, quality=95, exif=exif)
    reduced, whole = decode(file.getvalue(), 300), decode(file.getvalue(), 1500)
    assert photo_size(file.getvalue()) == (2000, 1500)
    assert reduced.size == ((400, 300) if orientation == 1 else (300, 400))
    expected = np.asarray(whole.resize(reduced.size, Image.Resampling.LANCZOS), int)
    assert np.abs(np.asarray(reduced, int) - expected).mean() < 2
