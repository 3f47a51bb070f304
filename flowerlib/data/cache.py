"""Decoded photos: all pixels in one file, decoded once and used by every later session."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL

from flowerlib.errors import UserError, one_line
from flowerlib.files import DATA, check_space, locked, make_folder, user_path

CHANNELS = 3
DECODING_SECONDS = 3600  # that another process may take for the same photos
WAYS_OUT = (
    "Free some space, set FLOWERLIB_CACHE to a folder on a larger disk, or do without the cache, which makes "
    "sessions slower: --set cache=false."
)


@dataclass(frozen=True, eq=False)
class PixelCache:
    """The pixels of n photos, at the sizes that `flowerlib.data.decoding.decode` gives them.

    Attributes:
        file: uint8 RGB, row by row, one photo after another.
        sizes: int64 (n, 2): height and width of each photo.
        starts: int64 (n,): where each photo begins in the file, in bytes.
    """

    file: Path
    sizes: np.ndarray
    starts: np.ndarray

    def read(self, index: int) -> np.ndarray:
        """Photo ``index``: uint8 (height, width, 3).

        It is read, and not mapped into memory: a mapping's pages count as the process's memory, which would grow
        with the data set. The system itself keeps the file in memory as long as there is room.
        """
        shape = (*self.sizes[index], CHANNELS)
        return np.fromfile(self.file, np.uint8, count=math.prod(shape), offset=self.starts[index]).reshape(shape)


class CacheWriter:
    """Writes decoded photos, one after another."""

    def __init__(self, file: Path):
        self.sizes: list[tuple[int, int]] = []
        self._stream = file.open("wb")

    def append(self, pixels: np.ndarray) -> None:
        """Add a photo: uint8 (height, width, 3)."""
        self._stream.write(np.ascontiguousarray(pixels))
        self.sizes.append(pixels.shape[:2])

    def close(self) -> None:
        """Make sure that everything is on the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()


def find_cache(fingerprint: str, side: int) -> PixelCache | None:
    """The cache of the photos with this fingerprint and shorter sides of at most ``side`` pixels.

    None if there is none, or it is damaged.
    """
    folder = _folder(fingerprint, side)
    try:
        with (folder / "sizes.npy").open("rb") as file:
            sizes = np.lib.format.read_array(file)
        ends = np.cumsum(sizes.prod(axis=1) * CHANNELS)
        complete = (folder / "pixels.u8").stat().st_size == ends[-1]
    except Exception:  # numpy raises nearly anything for a damaged file
        return None
    return PixelCache(folder / "pixels.u8", sizes, np.append(0, ends[:-1])) if complete else None


@contextmanager
def new_cache(fingerprint: str, side: int, needed: int) -> Iterator[CacheWriter | None]:
    """Give a writer; if the block succeeds, its photos become the data set's cache, in one move.

    The second of two processes waits for the first, and gets None: there is a cache by then.

    Args:
        fingerprint, side: as for `find_cache`.
        needed: bytes that the cache will take.

    Raises:
        UserError: the cache can't be written, or the disk has no room for it.
    """
    folder = _folder(fingerprint, side)
    building = make_folder(folder.parent) / f".{folder.name}.building"
    with locked(building.with_suffix(".lock"), folder.parent, patience=DECODING_SECONDS):
        if find_cache(fingerprint, side):
            yield None
            return
        try:
            shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
            check_space(folder.parent, needed, "are needed for the decoded photos", WAYS_OUT)
            building.mkdir()
            writer = CacheWriter(building / "pixels.u8")
            try:
                yield writer
            finally:
                writer.close()
            np.save(building / "sizes.npy", np.array(writer.sizes, np.int64).reshape(-1, 2))
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            building.rename(folder)
        except OSError as error:
            raise UserError(
                f"The decoded photos could not be written to {folder.parent} ({one_line(error)}). {WAYS_OUT}"
            ) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)


def cache_folder() -> Path:
    """Where everything lies that can be made again from the photos: FLOWERLIB_CACHE, else data/cache."""
    return user_path(os.environ.get("FLOWERLIB_CACHE") or DATA / "cache")


def _folder(fingerprint: str, side: int) -> Path:
    # decoders differ between versions of Pillow, by a grey level here and there
    return cache_folder() / f"{fingerprint[:16]}-{side}px-pillow{PIL.__version__}"
