"""Near-duplicates among the photos: two photos that come from one shot.

A validation photo whose copy is among the training photos does not test a network. What counts as a near-duplicate is
Barz and Denzler's definition ("Do We Train on Test Data? Purging CIFAR of Near-Duplicates", J. Imaging 6, 2020): both
come from the same shot, whatever was done to it afterwards.

The pairs belong to the photos, not to a run. The first command that needs them searches; the table stays in the cache
folder under the photos' fingerprint, and `flowerlib run` puts a copy beside the sessions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from flowerlib.data.cache import cache_folder
from flowerlib.data.listing import class_of
from flowerlib.data.photos import PhotoSet
from flowerlib.data.similarity import MAX_COMPARISONS, compare_all, squeeze
from flowerlib.data.threads import in_threads
from flowerlib.errors import UserError
from flowerlib.files import write_text

PAIRS = "duplicates.csv"  # in the data set's folder among the runs
IDENTICAL, SIMILAR = "identical", "similar"
COLUMNS = ("kind", "first", "second", "distance")
LEFT_OUT = "comparisons left out"  # in a table's first line, and in its `attrs`

# 1 - correlation of the details. The paper's 42 closest pairs that aren't identical, looked at as pictures: up to .27
# (19 pairs) one shot, or two taken within a moment; at .37 the same flower twice, from different sides; from .50 on
# different flowers of one shape, or photos with nothing in common but a white frame. Copies of 300 photos, cropped by
# 5 % on each side, tinted, halved and saved as JPEG of quality 30, all at once, are at .08 in the median, and 99 %
# are below .22.
FARTHEST = 0.3

_FIRST_LINE = re.compile(rf"# photos (\S+), {LEFT_OUT} (\d+)\s*")


def find_pairs(paths: Sequence[str], hashes: Sequence[str], pictures: np.ndarray) -> pd.DataFrame:
    """Find every two photos that are copies of one shot.

    Identical files are always found. So are 99 % of copies (of the paper's photos) that were mirrored left to right,
    saved again (as JPEG, quality 30 or better), resized (down to a half), made grey or tinted, cropped by up to 5 %
    on each side, or all of these. Many copies that were cropped further, rotated or strongly brightened are found as
    well, and so are two shots of a scene in which nothing moved: no number tells them apart.

    All photos are compared at a glance, those that look alike in detail. `flowerlib.data.similarity` limits the
    latter, so that 100,000 photos, or thousands of nearly equal video frames, take minutes.

    Args:
        paths: n relative paths, in any order.
        hashes: of the n files.
        pictures: uint8 (n, 64, 64), of `flowerlib.data.similarity.squeeze`.

    Returns:
        One row per pair, identical ones first, then the closest: ``kind`` (`IDENTICAL` or `SIMILAR`), ``first`` and
        ``second`` (relative paths, in alphabetical order), ``distance`` (0 for identical files, otherwise 1 - the
        correlation of their details, at most `FARTHEST`). Of several identical files, each is paired with the first
        one, and only the first is compared with other photos. ``attrs[LEFT_OUT]`` counts comparisons that were left
        out.
    """
    copies = defaultdict(list)
    for index in sorted(range(len(paths)), key=paths.__getitem__):
        copies[hashes[index]].append(index)
    distinct = [same[0] for same in copies.values()]
    rows = [(IDENTICAL, paths[same[0]], paths[other], 0.0) for same in copies.values() for other in same[1:]]
    compared, left_out = compare_all(pictures[distinct])
    rows += [
        (SIMILAR, paths[distinct[first]], paths[distinct[second]], distance)
        for first, second, distance in compared
        if distance <= FARTHEST
    ]
    pairs = pd.DataFrame(rows, columns=COLUMNS).astype({"first": str, "second": str, "distance": float})
    pairs = pairs.sort_values(["kind", "distance", "first", "second"])
    pairs = pairs.drop_duplicates(["first", "second"], ignore_index=True)  # alike as they are and mirrored
    pairs.attrs[LEFT_OUT] = left_out
    return pairs


def provide_pairs(path: Path, photos: PhotoSet) -> None:
    """Write the table of the photos' near-duplicates to ``path``, unless it is there; search only if nobody has."""
    if not _holds(path, photos.fingerprint):
        pairs = photo_pairs(photos)
        write_pairs(path, pairs, photos.fingerprint)
        print(f"{describe_pairs(pairs)} {path} lists them.")


def photo_pairs(photos: PhotoSet) -> pd.DataFrame:
    """The pairs among these photos: those in the cache folder, or else newly found, as by `find_pairs`."""
    return pairs_of(photos.fingerprint, lambda: find_pairs(photos.paths, photos.hashes, _squeezed(photos)))


def pairs_of(fingerprint: str, search: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The pairs among the photos with this fingerprint: those in the cache folder, or else what ``search`` finds."""
    path = pairs_file(fingerprint)
    pairs = read_pairs(path, fingerprint)
    if pairs is None:
        pairs = search()
        with suppress(UserError, OSError):  # where nothing can be written, the next command searches again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_pairs(path, pairs, fingerprint)
    return pairs


def pairs_file(fingerprint: str) -> Path:
    """Where the cache folder keeps the table for the photos with this fingerprint."""
    return cache_folder() / f"{fingerprint[:16]}-{PAIRS}"


def describe_pairs(pairs: pd.DataFrame) -> str:
    """How many near-duplicates there are, in a sentence or two for the terminal."""
    identical, contradictory = (pairs["kind"] == IDENTICAL).sum(), len(under_two_labels(pairs))
    number = f"{len(pairs):,} pair" + ("s" if len(pairs) != 1 else "")
    text = f"Near-duplicates: {number} ({identical:,} identical, {contradictory:,} under two labels)."
    if left_out := pairs.attrs[LEFT_OUT]:
        text += (
            f" The search was limited to {MAX_COMPARISONS:,} comparisons at most: {left_out:,} pairs of photos that "
            "look somewhat alike were not compared in detail."
        )
    return text


def write_pairs(path: Path, pairs: pd.DataFrame, fingerprint: str) -> None:
    """Write pairs as CSV below a line with the photos' fingerprint; distances keep all their digits."""
    first_line = f"# photos {fingerprint}, {LEFT_OUT} {pairs.attrs[LEFT_OUT]}\n"
    write_text(path, first_line + pairs.to_csv(index=False, lineterminator="\n"))


def read_pairs(path: Path, fingerprint: str) -> pd.DataFrame | None:
    """Read what `write_pairs` wrote; None if there is no file, or it is about other photos.

    Raises:
        UserError: it can't be read, or holds no table of pairs.
    """
    if not _holds(path, fingerprint):
        return None
    try:
        with path.open(encoding="utf-8") as file:
            left_out = int(_FIRST_LINE.fullmatch(file.readline())[2])
            pairs = pd.read_csv(file, dtype={"distance": float})
    except (OSError, ValueError) as error:  # pandas' parser errors and bad UTF-8 are ValueErrors
        raise _damaged(path, str(error)) from error
    if tuple(pairs.columns) != COLUMNS:
        raise _damaged(path, f"its columns are not {', '.join(COLUMNS)}")
    if not (pairs["kind"].isin([IDENTICAL, SIMILAR]).all() and pairs["distance"].between(0, 2).all()):
        raise _damaged(path, "it holds an unknown kind or an impossible distance")
    pairs = pairs.astype({"first": str, "second": str})
    pairs.attrs[LEFT_OUT] = left_out
    return pairs


def across_split(pairs: pd.DataFrame, sides: Mapping[str, Hashable]) -> pd.DataFrame:
    """The pairs whose photos are on different sides of a split.

    Args:
        pairs: from `find_pairs`.
        sides: by relative path; photos that it lacks are together on one side more.
    """
    apart = [
        sides.get(first) != sides.get(second) for first, second in zip(pairs["first"], pairs["second"], strict=True)
    ]
    return pairs[np.array(apart, bool)].reset_index(drop=True)


def under_two_labels(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose photos are in two class folders: at least one of the labels is wrong."""
    first, second = (pairs[column].str.split("/").str[-2] for column in ("first", "second"))
    return pairs[first != second].reset_index(drop=True)


def leaked(pairs: pd.DataFrame, sides: Mapping[str, Hashable]) -> list[str]:
    """The validation photos that do not test what a network has learnt.

    Args:
        pairs: from `find_pairs`, for all photos of the run.
        sides: of the validation photos, as in `flowerlib.runs.Run`.

    Returns:
        Relative paths, in the order of ``sides``, of validation photos that have a copy on another side, or a copy
        with another label, for `flowerlib.report.statistics.accuracy_without`.
    """
    identical = pairs[pairs["kind"] == IDENTICAL]
    original = dict(zip(identical["second"], identical["first"], strict=True))  # the first one of identical files
    copies = defaultdict(set)
    for photo in {*pairs["first"], *pairs["second"]}:
        copies[original.get(photo, photo)].add(photo)
    traits = {key: {(class_of(photo), sides.get(photo)) for photo in same} for key, same in copies.items()}
    concerned = set()
    for first, second in _pairs_of_originals(pairs, original):
        labels, places = (set(values) for values in zip(*traits[first] | traits[second], strict=True))
        if len(labels) > 1 or len(places) > 1:
            concerned |= {first, second}
    return [photo for photo in sides if original.get(photo, photo) in concerned]


def _pairs_of_originals(pairs: pd.DataFrame, original: dict[str, str]) -> Iterator[tuple[str, str]]:
    for first, second in zip(pairs["first"], pairs["second"], strict=True):
        yield original.get(first, first), original.get(second, second)


def _squeezed(photos: PhotoSet) -> np.ndarray:
    """All photos as `squeeze` makes them, in their order."""
    return np.stack(list(in_threads(lambda index: squeeze(photos.read(index)), range(len(photos)))))


def _holds(path: Path, fingerprint: str) -> bool:
    """Whether a file begins as the table for the photos with this fingerprint does."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            first_line = _FIRST_LINE.fullmatch(file.readline(1000))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _damaged(path, error.strerror) from error
    return first_line is not None and first_line[1] == fingerprint


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} can't be read as a table of near-duplicates ({reason}). Remove it and run .venv/bin/flowerlib run "
        "again as before: it makes a new one, and does not repeat finished sessions."
    )
