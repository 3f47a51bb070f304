"""Where things lie, and how files are written: beside their place first, then moved."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flowerlib.errors import UserError, one_line

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = PROJECT / "notebooks"
REPORT = PROJECT / "report"
DATA = PROJECT / "data"
RUNS = PROJECT / "runs"

PATIENCE = 5.0  # seconds: a process whose parent was killed needs a moment to notice


def user_path(text: str | Path) -> Path:
    """The absolute path that a user means; ``~`` is their home, ``~name`` another's.

    Raises:
        UserError: there is no such user.
    """
    expanded = os.path.expanduser(str(text))
    if expanded.startswith("~"):
        raise UserError(f"{text} begins with a user's name that isn't known here. Write the folder's full path.")
    return Path(os.path.realpath(expanded))  # where links lead in a circle pathlib's own raises


def is_printable(name: str) -> bool:
    """Whether ``name`` can be printed and written as UTF-8: no control characters, no bytes of another encoding."""
    return not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", name)


def make_folder(folder: Path) -> Path:
    """Make ``folder`` and its parents; a `UserError` says why it can't be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"Nothing can be written to the folder {folder} ({one_line(error)}). "
            "Choose another folder, or change its permissions."
        ) from error
    return folder


def check_space(
    folder: Path,
    needed: int,
    purpose: str = "may be needed",
    ways_out: str = "Free some space or choose a folder on another disk.",
) -> None:
    """Refuse to begin what the disk of ``folder`` has no room for, in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"The disk of {folder} has {free / 1e9:.2f} GB free, and {needed / 1e9:.2f} GB {purpose}. {ways_out}"
        )


@contextmanager
def locked(lock: Path, place: Path, patience: float | None = None) -> Iterator[None]:
    """Keep other processes out of ``place`` as long as the block runs, by holding the file ``lock``.

    The system lets go of it however the process ends.

    Args:
        lock: the file; it stays.
        place: what is protected, for the message.
        patience: seconds to wait for another process; `PATIENCE` if None.

    Raises:
        UserError: another process is there and doesn't leave in time, or the file can't be locked.
    """
    holder = FileLock(lock, timeout=PATIENCE if patience is None else patience)
    try:
        holder.acquire()
    except Timeout as error:
        raise UserError(
            f"Another process is at work in {place}. Let it finish, or end it; then run the same command again."
        ) from error
    except (OSError, NotImplementedError) as error:  # the second: file systems without locks
        raise UserError(
            f"The file {lock} can't be locked ({one_line(error)}), so other processes can't be kept out of {place}. "
            "Change its permissions, or choose a folder on another disk."
        ) from error
    try:
        yield
    finally:
        holder.release()


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; move it into place if the block succeeds.

    A reader sees the old file or the new one, never a part: the data reach the disk before the move. If the
    block fails, the old file stays and the temporary one is removed.

    Args:
        path: the file.
        keep: where the old file is moved to, instead of being replaced.

    Raises:
        UserError: the folder can't be written to, or the disk is full.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise UserError(f"{path} can't be written ({one_line(error)}). Choose another folder.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide the file from the user's colleagues
        if keep and path.exists():
            path.replace(keep)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({one_line(error)}); what stood there before is untouched. "
            "Free some space or choose another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` (UTF-8) in one move."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _sync_folder(folder: Path) -> None:
    """Bring renames in ``folder`` to the disk: until then a power failure may undo them."""
    if os.name == "posix":  # elsewhere folders can't be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
