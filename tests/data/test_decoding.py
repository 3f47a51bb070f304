"""What is read from a photo, and what its metadata may look like."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from flowerlib.data.decoding import JPEG_END, decode, looks_like_a_photo

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
    picture = decode(data)
    assert picture.size == ((72, 88) if turned else (88, 72))
    expected = PICTURE.transpose(Image.Transpose.ROTATE_270) if turned else PICTURE
    assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).mean() < 5


def test_a_jpeg_may_lack_its_end_marker_and_no_more():
    whole = saved("JPEG")
    assert whole.endswith(JPEG_END)
    assert np.array_equal(decode(whole[:-2]), decode(whole))
    for cut in (whole[: len(whole) // 2], saved("JPEG", progressive=True)[:-2]):
        with pytest.raises(OSError, match="cut off"):
            decode(cut)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_photo_is_known_by_its_content(tmp_path, kind):
    for name in ("photo", "photo.HEIC", "photo.jfif", "photo.PNG"):
        (tmp_path / name).write_bytes(saved(kind))
        assert looks_like_a_photo(tmp_path / name)
    (tmp_path / "photo.NEF").write_bytes(saved(kind))
    assert not looks_like_a_photo(tmp_path / "photo.NEF")


@pytest.mark.parametrize(
    "content", [b"", b"BM text", b"RIFF    AVI LIST", b"GIF7", b"%PDF-1.7", b"\0\0\0\x18ftypheic"]
)
def test_what_is_no_photo_is_not_taken_for_one(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert not looks_like_a_photo(tmp_path / "file")
