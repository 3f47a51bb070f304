"""What reading the photo files told, remembered so that the next session need not read them again.

A small JSON file in the cache folder holds the hash of each file of a folder of photos, with what the file system
says about the file: size, inode, and the times of its last changes. A file whose entry still agrees is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import PIL

from flowerlib.data.cache import cache_folder
from flowerlib.errors import UserError
from flowerlib.files import write_text

# File systems record times in steps, of up to 2 s on FAT: a file may change again within one, and look the same.
SETTLED = 2_000_000_000  # nanoseconds since a file's last change, from which on its hash is remembered

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class PhotoFile:
    """What reading a file told.

    Attributes:
        path: relative to the folder of photos.
        sha256: in hex; '' if the file can't be read.
        problem: why it can't be used as a photo; None if nothing speaks against it.
        decoded: whether it was also decoded, in full.
        size: width and height in pixels by its header; None if that can't be read.
        stamp: size in bytes, inode, and times of the last changes of content and entry in ns, all from before it was
            read; None if it had only just changed, or is not there.
    """

    path: str
    sha256: str
    problem: str | None
    decoded: bool = False
    size: tuple[int, int] | None = None
    stamp: Stamp | None = None


def settled_stamp(file: Path) -> Stamp | None:
    """A file's stamp; None if the file changed so recently that it might change again under the same stamp."""
    try:
        stamp = _stamp(file)
    except OSError:
        return None
    return stamp if time.time_ns() - max(stamp[2:]) >= SETTLED else None


def recall(root: Path, paths: Iterable[str]) -> dict[str, PhotoFile]:
    """Those of the files in ``root`` that were read before and have not changed since, by path."""
    remembered = _read_memory(root)
    known = {}
    for path in paths:
        with suppress(OSError, KeyError, TypeError, ValueError):  # missing, not remembered, or not our entry
            *stamp, sha256, decoded, width, height = remembered[path]
            if tuple(stamp) == _stamp(root / path):
                known[path] = PhotoFile(path, sha256, None, decoded, (width, height), tuple(stamp))
    return known


def remember(root: Path, files: Iterable[PhotoFile]) -> None:
    """Remember the files of ``root`` in place of those remembered before; does nothing where nothing can be written.

    Unreadable photos are left out, so that each session looks at them again.
    """
    entries = {
        file.path: [*file.stamp, file.sha256, file.decoded, *file.size]
        for file in files
        if file.stamp and file.size and not file.problem
    }
    memory = _memory_file(root)
    if entries or memory.exists():
        with suppress(UserError, OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_text(memory, json.dumps({"pillow": PIL.__version__, "files": entries}))


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _read_memory(root: Path) -> dict:
    try:
        memory = json.loads(_memory_file(root).read_text(encoding="utf-8"))
        # another version may fail to decode what this one could
        return memory["files"] if memory["pillow"] == PIL.__version__ else {}
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is damaged: the photos are read again
        return {}


def _memory_file(root: Path) -> Path:
    return cache_folder() / f"hashes-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
