"""Near-duplicates among the photos: one shot that stands in the data set twice.

A copy of a training photo among the validation photos is no test of a network. What counts as a near-duplicate is
Barz and Denzler's definition ("Do We Train on Test Data? Purging CIFAR of Near-Duplicates", J. Imaging 6, 2020):
both come from the same shot, whatever was done to it afterwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from flowerlib.data.photos import PhotoSet, inspect
from flowerlib.data.threads import in_threads
from flowerlib.errors import UserError
from flowerlib.files import write_text
from flowerlib.progress import progress_bar

PAIRS = "duplicates.csv"  # in the data set's folder among the runs
IDENTICAL, SIMILAR = "identical", "similar"
COLUMNS = ("kind", "first", "second", "distance")

SIDE = 64  # of the grey pictures that are compared, in pixels
COARSE = 8  # of those that decide which two are compared at all

# Correlation of two coarse pictures from which on they are compared in detail. Of 300 of the paper's photos, cut by
# 5 % on each side, all correlate more with themselves; of its 8 million pairs, either way round, 6,157 do. Down to
# .45 there are twelve times as many, and one more pair is found.
ALIKE = 0.65

# Pixels. What is finer than a blur of this width tells one dandelion from another; their outlines are all alike.
FINE = 1.5

NOISE = 2.0  # grey levels: details that are weaker count less
OVERLAP = 0.6  # of the first picture, when the second is laid over it: what shares less is no copy

# 1 - correlation of the details. The paper's 42 closest pairs that aren't identical, looked at as pictures: up to .27
# (19 pairs) one shot, or two taken within a moment; at .37 twice the same flower, seen from elsewhere; from .50 on
# other flowers of one shape, or photos that have no more than a white frame in common. Copies of 300 photos, cut by
# 5 % on each side, tinted, halved and saved as JPEG of quality 30 at once, are at .08 in the median, 99 % below .22.
FARTHEST = 0.3

_STEPS = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 10, 1e-3)
_SMOOTHING = 5  # pixels, of the pictures while they are laid over each other: it widens the reach
_ROWS = 1024  # photos whose correlations with all others are in memory at once


def find_pairs(photos: PhotoSet) -> pd.DataFrame:
    """Find every two photos that are copies of one shot.

    Promised are files of the same bytes, and copies that were mirrored left to right, saved again (as JPEG from
    quality 30 up), resized (down to a half), made grey or tinted, cut by up to 5 % on each side, or all of these:
    of such copies of the paper's photos 99 % are found. Not promised, though many are found: larger cuts, rotations,
    strong changes of light. Two shots of a scene in which nothing moved are found as well: no number tells them
    apart.

    Every photo is compared with every other: some seconds for 3,000 photos, in proportion to the square of their
    number.

    Args:
        photos: the photos; their order doesn't matter.

    Returns:
        A row a pair, identical ones first, then the closest: ``kind`` (`IDENTICAL` or `SIMILAR`), ``first`` and
        ``second`` (relative paths, in alphabetical order), ``distance`` (0 for identical bytes, else 1 - the
        correlation of their details, `FARTHEST` at most).
    """
    rows = [(IDENTICAL, *pair, 0.0) for pair in _identical(photos)]
    rows += [(SIMILAR, *pair, distance) for *pair, distance in _similar(photos)]
    pairs = pd.DataFrame(rows, columns=COLUMNS).astype({"first": str, "second": str, "distance": float})
    pairs = pairs.sort_values(["kind", "distance", "first", "second"])
    return pairs.drop_duplicates(["first", "second"], ignore_index=True)  # identical ones are similar, too


def write_pairs(path: Path, pairs: pd.DataFrame) -> None:
    """Write pairs as CSV; distances keep all their digits."""
    write_text(path, pairs.to_csv(index=False, lineterminator="\n"))


def read_pairs(path: Path) -> pd.DataFrame:
    """Read what `write_pairs` wrote.

    Raises:
        UserError: it is missing, or no table of pairs.
    """
    try:
        pairs = pd.read_csv(path, dtype={"distance": float})
    except (OSError, ValueError) as error:  # pandas' parser errors and bad UTF-8 are ValueErrors
        raise _no_pairs(path, str(error)) from error
    if tuple(pairs.columns) != COLUMNS:
        raise _no_pairs(path, f"its columns are not {', '.join(COLUMNS)}")
    if not (pairs["kind"].isin([IDENTICAL, SIMILAR]).all() and pairs["distance"].between(0, 2).all()):
        raise _no_pairs(path, "a kind or a distance in it is none")
    return pairs.astype({"first": str, "second": str})


def across_split(pairs: pd.DataFrame, validation_photos: Collection[str]) -> pd.DataFrame:
    """The pairs with one photo on each side of the split.

    Args:
        pairs: of `find_pairs`.
        validation_photos: relative paths; every other photo is a training photo.
    """
    sides = [pairs[column].isin(set(validation_photos)) for column in ("first", "second")]
    return pairs[sides[0] != sides[1]].reset_index(drop=True)


def under_two_labels(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose photos stand in two class folders: one of the two labels is wrong, or both are."""
    first, second = (pairs[column].str.split("/").str[0] for column in ("first", "second"))
    return pairs[first != second].reset_index(drop=True)


def leaked(pairs: pd.DataFrame, predictions: pd.DataFrame) -> list[str]:
    """The validation photos that measure something else than what a network has learnt.

    Args:
        pairs: of `find_pairs`, on all photos of the run.
        predictions: of `flowerlib.runs.Run`.

    Returns:
        Relative paths, in the order of ``predictions``, of validation photos that have a copy among the training
        photos or that stand under two labels, for `flowerlib.report.statistics.accuracy_without`.
    """
    concerned = pd.concat([across_split(pairs, predictions["photo"]), under_two_labels(pairs)])
    paths = {*concerned["first"], *concerned["second"]}
    return [photo for photo in predictions["photo"] if photo in paths]


def _identical(photos: PhotoSet) -> Iterator[tuple[str, str]]:
    copies = defaultdict(list)
    for file in inspect(photos.root, sorted(photos.paths), decoded=None):
        copies[file.sha256 or file.path].append(file.path)  # no hash: it was removed after it was decoded
    for same in copies.values():
        yield from combinations(same, 2)


def _similar(photos: PhotoSet) -> Iterator[tuple[str, str, float]]:
    """Two paths and the distance; one that is also near in the mirror comes twice."""
    order = sorted(range(len(photos)), key=photos.paths.__getitem__)
    greys = np.stack(list(in_threads(lambda index: _grey(photos.read(index)), order)))
    candidates = list(_candidates(greys))
    distances = in_threads(lambda candidate: _distance(*_laid_out(greys, candidate)), candidates)
    bar = progress_bar(distances, desc="Comparing photos", total=len(candidates), unit="pair")
    for (first, second, _), distance in zip(candidates, bar, strict=True):
        if distance <= FARTHEST:
            yield photos.paths[order[first]], photos.paths[order[second]], distance


def _grey(pixels: np.ndarray) -> np.ndarray:
    """The whole photo, squeezed into a square: uint8 (SIDE, SIDE)."""
    return cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _candidates(greys: np.ndarray) -> Iterator[tuple[int, int, bool]]:
    """Indices of two pictures that are roughly alike, the smaller first, and whether the second is mirrored."""
    coarse = np.stack([_coarse(grey) for grey in greys])
    units, mirrored = _units(coarse), _units(coarse[:, :, ::-1])
    for start in range(0, len(greys), _ROWS):
        for mirror, others in ((False, units), (True, mirrored)):
            for row, second in np.argwhere(units[start : start + _ROWS] @ others.T > ALIKE).tolist():
                if start + row < second:
                    yield start + row, second, mirror


def _laid_out(greys: np.ndarray, candidate: tuple[int, int, bool]) -> tuple[np.ndarray, np.ndarray]:
    first, second, mirror = candidate
    return greys[first], np.ascontiguousarray(greys[second, :, ::-1]) if mirror else greys[second]


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """1 - the correlation of the details of two pictures where they overlap, once one is laid over the other.

    Laid over by an affine map that maximizes the pictures' correlation (Evangelidis and Psarakis, "Parametric Image
    Alignment Using Enhanced Correlation Coefficient Maximization", 2008), as OpenCV has it.

    Args:
        first, second: uint8 (SIDE, SIDE).

    Returns:
        From 0 to 2. Where the map is not found, or leads one picture off the other: as they lie, edge on edge.
    """
    details = _detail(first, FINE), _detail(second, FINE)
    as_they_lie = _apart(*details)
    place = np.eye(2, 3, dtype=np.float32)
    try:
        _, place = cv2.findTransformECC(first, second, place, cv2.MOTION_AFFINE, _STEPS, None, _SMOOTHING)
    except cv2.error:  # they have nothing in common to go by
        return as_they_lie
    inside = _moved(np.ones_like(details[1]), place) > 0.99
    if inside.mean() < OVERLAP:
        return as_they_lie
    return min(as_they_lie, _apart(details[0][inside], _moved(details[1], place)[inside]))


def _apart(first: np.ndarray, second: np.ndarray) -> float:
    """1 - the correlation; 1 where one is of a single colour."""
    return float(np.clip(1 - np.dot(*_units(np.stack([first, second]))), 0, 2))


def _moved(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """``picture`` as it lies on the first one; 0 outside of it."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, place, picture.shape[::-1], flags=flags)


def _coarse(grey: np.ndarray) -> np.ndarray:
    """What a glance tells of a picture, whatever its light: float32 (COARSE, COARSE)."""
    return cv2.resize(_detail(grey, SIDE / COARSE), (COARSE, COARSE), interpolation=cv2.INTER_AREA)


def _detail(picture: np.ndarray, width: float) -> np.ndarray:
    """What is finer than a blur of ``width`` pixels, relative to how strong it is around.

    Else one sharp edge, that of a frame, would outweigh all of a flower.
    """
    picture = picture.astype(np.float32)
    detail = picture - cv2.GaussianBlur(picture, (0, 0), width)
    strength = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), width))
    return detail / (strength + NOISE)


def _units(pictures: np.ndarray) -> np.ndarray:
    """Each picture as a row of mean 0 and length 1, so that products are correlations; zeros for a single colour."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-3)


def _no_pairs(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} can't be read as a table of near-duplicates ({reason}). Remove it and run the same command again, "
        "which makes it anew."
    )
