"""Decoding one photo: what counts as a photo, and what is read from it."""

from __future__ import annotations

import io
import struct
from math import ceil
from pathlib import Path

import pi_heif
from PIL import Image, UnidentifiedImageError

from flowerlib.errors import one_line

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".heif", ".hif", ".avif")
)
# of these suffixes; one of Pillow's many others runs a program, Ghostscript, on the files it reads
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "HEIF", "AVIF")
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
SIGNATURES = (JPEG, PNG, b"GIF8", b"II*\0", b"MM\0*")  # and BMP's, WebP's and HEIF's, which have gaps
HEIF_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"avif")  # a video's container is the same, with other brands
# cameras' raw files look like TIFF, but hold a small preview where a TIFF has its picture
RAW_SUFFIXES = frozenset((".arw", ".cr2", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"))
JPEG_END = b"\xff\xd9"
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")

# Pixels of a photo's shorter side. Where a photo has more, it is made smaller before it is kept: views of up to 228
# pixels are taken from 800, larger ones from 3.5 times their own side, so that the smallest crop that the paper's
# augmentation draws (8 % of the area) still has as many pixels as its view. The paper's photos have fewer than 800.
KEPT_SIDE, KEPT_SIDES_A_VIEW = 800, 3.5

MAX_PIXELS = 89_478_485  # per photo, 268 MB decoded: from here on Pillow suspects a decompression bomb
MAX_BYTES = 4 * MAX_PIXELS  # per file: more than so many pixels take up uncompressed

ORIENTATION = 0x0112  # EXIF's tag
UPRIGHT = {  # by its value
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

pi_heif.register_heif_opener()


def kept_side(image_size: int) -> int:
    """The shorter side, in pixels, that is kept of a larger photo for views of ``image_size`` pixels."""
    return max(KEPT_SIDE, ceil(KEPT_SIDES_A_VIEW * image_size))


def kept_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height that are kept of a photo, for a shorter side of at most ``side`` pixels."""
    shorter = min(width, height)
    return (width, height) if shorter <= side else (round(width * side / shorter), round(height * side / shorter))


def looks_like_a_photo(file: Path) -> bool:
    """Whether a file is a photo by its first bytes, whatever its name is; False if it can't be read."""
    if file.suffix.lower() in RAW_SUFFIXES:
        return False
    try:
        with file.open("rb") as stream:
            start = stream.read(14)
    except OSError:
        return False
    is_bmp = start.startswith(b"BM") and start[6:10] == bytes(4)
    is_webp = start.startswith(b"RIFF") and start[8:12] == b"WEBP"
    is_heif = start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS
    return start.startswith(SIGNATURES) or is_bmp or is_webp or is_heif


def photo_size(data: bytes) -> tuple[int, int] | None:
    """A photo's width and height in pixels by its header, which may lie; None if it can't be read."""
    try:
        return _open(data).size
    except Exception:  # Pillow raises nearly anything: `decode` says what is wrong
        return None


def decode(data: bytes, side: int) -> Image.Image:
    """Decode a photo, turned upright by its EXIF orientation, as RGB, with a shorter side of at most ``side`` pixels.

    Nothing else is read from its metadata: where these are spoilt, the picture is taken as it lies. Of an animation,
    the first frame is decoded. Alpha is dropped.

    Raises:
        ValueError: it is grey with more than 8 bits, which Pillow would silently clip to white, or has so many pixels
            that it must be a decompression bomb.
        Exception: whatever Pillow raises for a file that it can't decode.
    """
    image = _open(data)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} × {image.height} pixels, more than {MAX_PIXELS:,}: make it smaller")
    if image.mode[0] in "IF":
        raise ValueError("more than 8 bits per channel: convert it to 8 bits")
    size = kept_size(*image.size, side)
    image.draft(None, size)  # a large JPEG is decoded at an eighth, a quarter or half of its size
    try:
        image.load()
    except OSError as error:
        if (mended := _with_end_marker(image, data)) is None:
            raise OSError("the file is cut off" if "truncated" in str(error) else str(error)) from error
        image = mended
    turn = UPRIGHT.get(_orientation(image))
    if "transparency" in image.info:
        image = image.convert("RGBA")  # converting straight to RGB, Pillow warns about a palette's transparency
    image = image.convert("RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image if turn is None else image.transpose(turn)


def why_unreadable(error: Exception) -> str:
    """Why a photo can't be decoded, for a message."""
    if isinstance(error, UnidentifiedImageError):  # its own message names a buffer in memory
        return f"not an image in any of the formats {', '.join(FORMATS)}, or a damaged one"
    return one_line(error)


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(_without_metadata(data) if data.startswith(PNG) else data), formats=FORMATS)


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises nearly anything for spoilt metadata
        return None


def _with_end_marker(image: Image.Image, data: bytes) -> Image.Image | None:
    """A JPEG that lacks its end marker only, which every viewer shows; None where more is missing.

    Where more is missing, a sequential JPEG ends in blocks of one colour; a progressive one, only blurred, can't be
    told from a whole one.
    """
    if image.format in ("JPEG", "MPO") and not image.info.get("progressive") and not data.endswith(JPEG_END):
        mended = _open(data + JPEG_END)
        corner = mended.crop((mended.width - 8, mended.height - 8, mended.width, mended.height))
        if len(corner.getcolors()) > 1:
            return mended
    return None


def _without_metadata(png: bytes) -> bytes:
    """A PNG with nothing but its pixels and its orientation: Pillow refuses it for text or profiles of a megabyte."""
    kept, place = [PNG], len(PNG)
    while place + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        chunk = png[place : place + 12 + length]
        if kind in PNG_PIXELS:
            kept.append(chunk)
        place += len(chunk)
    return b"".join(kept)


def read_bytes(file: Path) -> bytes:
    """A photo's file; a ValueError says that it is too long to be one."""
    if (size := file.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}: make it smaller")
    return file.read_bytes()
