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

from flowerlib.dataset import PhotoSet, inspect
from flowerlib.errors import UserError
from flowerlib.files import write_text
from flowerlib.progress import progress_bar
from flowerlib.threads import in_threads

IDENTICAL, SIMILAR = "identical", "similar"
COLUMNS = ("kind", "first", "second", "distance")

SIDE = 64  # of the grey pictures that are compared, in pixels
COARSE = 8  # of those that decide which two are compared at all

# Correlation of two coarse pictures. A shot without 5 % on each side keeps more in 96 % of cases (300 photos); of
# the paper's pairs .3 % have more, either way round. .65 takes six times as long, for three pairs more.
ALIKE = 0.85

# What is finer than a blur of so many pixels tells one dandelion from another; their outlines are all alike.
DETAIL = 1.5

# Two cut copies of a shot share at least this part of the first.
OVERLAP = 0.6

# 1 - correlation of the details. Promised copies (see `find_pairs`) of 200 of the paper's photos stay below .19.
# Looked at as pictures, the paper's 50 closest pairs are one shot, or two taken within a moment without moving, up
# to .25; then the same flower seen from elsewhere, mixed with two different dandelions (.30) and pictures that share
# no more than a frame (from .41 on).
FARTHEST = 0.25

_STEPS = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 10, 1e-3)
_SMOOTHING = 5  # pixels, of the pictures while they are laid over each other: it widens the reach
_ROWS = 1024  # photos whose correlations with all others are in memory at once


def find_pairs(photos: PhotoSet) -> pd.DataFrame:
    """Find every two photos that are copies of one shot.

    Promised are files of the same bytes, and copies that were re-encoded (JPEG from quality 10 up), resized (down
    to a third), made grey or tinted, mirrored left to right, cut by up to 5 % on each side, or all of these: of
    such cuts, about 96 % are found. Not promised, though some are found: larger cuts, rotations, strong changes of
    brightness. Two shots of a scene that nothing moved in are found as well: no number tells them apart.

    Every photo is compared with every other: about ten seconds for 3,000 photos on two cores, in proportion to the
    square of their number.

    Args:
        photos: the photos; their order doesn't matter.

    Returns:
        A row a pair, identical ones first, then the closest: ``kind`` (`IDENTICAL` or `SIMILAR`), ``first`` and
        ``second`` (relative paths, in alphabetical order), ``distance`` (0 for identical bytes, else 1 - the
        correlation of their details, up to `FARTHEST`).
    """
    order = sorted(range(len(photos)), key=photos.paths.__getitem__)
    paths = [photos.paths[index] for index in order]
    greys = np.stack(list(in_threads(lambda index: _grey(photos.read(index)), order)))
    distances = {pair: 0.0 for pair in _identical(photos)}
    kinds = dict.fromkeys(distances, IDENTICAL)

    candidates = list(_candidates(greys))
    measured = in_threads(lambda candidate: _distance(*_laid_out(greys, candidate)), candidates)
    bar = progress_bar(measured, desc="Comparing photos", total=len(candidates), unit="pair")
    for (first, second, _), distance in zip(candidates, bar, strict=True):
        pair = paths[first], paths[second]
        if distance <= FARTHEST and kinds.setdefault(pair, SIMILAR) == SIMILAR:
            distances[pair] = min(distance, distances.get(pair, distance))  # of a picture and its mirror image
    rows = [(kinds[pair], *pair, distance) for pair, distance in distances.items()]
    return _sorted(pd.DataFrame(rows, columns=COLUMNS).astype({"distance": float}))


def write_pairs(path: Path, pairs: pd.DataFrame) -> None:
    """Write pairs as CSV; distances keep all their digits."""
    write_text(path, pairs.to_csv(index=False, lineterminator="\n"))


def read_pairs(path: Path) -> pd.DataFrame:
    """Read what `write_pairs` wrote.

    Raises:
        UserError: it is missing, or no table of pairs.
    """
    try:
        pairs = pd.read_csv(path, dtype={"distance": float}, keep_default_na=False, float_precision="round_trip")
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
        predictions: of `flowerlib.metrics.Run`.

    Returns:
        Relative paths, in the order of ``predictions``, of validation photos that have a copy among the training
        photos or that stand under two labels, for `flowerlib.analysis.accuracy_without`.
    """
    concerned = pd.concat([across_split(pairs, predictions["photo"]), under_two_labels(pairs)])
    return [photo for photo in predictions["photo"] if photo in {*concerned["first"], *concerned["second"]}]


def _identical(photos: PhotoSet) -> Iterator[tuple[str, str]]:
    copies = defaultdict(list)
    for file in inspect(photos.root, sorted(photos.paths), decoded=None):
        copies[file.sha256 or file.path].append(file.path)  # no hash: it was removed after it was decoded
    for same in copies.values():
        yield from combinations(same, 2)


def _grey(pixels: np.ndarray) -> np.ndarray:
    """The whole photo, squeezed into a square: uint8 (SIDE, SIDE)."""
    return cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _candidates(greys: np.ndarray) -> Iterator[tuple[int, int, bool]]:
    """Indices of two pictures that are roughly alike, the smaller first, and whether the second is mirrored."""
    step = SIDE // COARSE
    coarse = greys.reshape(len(greys), COARSE, step, COARSE, step).mean(axis=(2, 4), dtype=np.float32)
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
        From 0 to 2; 1 if they can't be laid over each other, or one is of a single colour.
    """
    place = np.eye(2, 3, dtype=np.float32)
    try:
        _, place = cv2.findTransformECC(first, second, place, cv2.MOTION_AFFINE, _STEPS, None, _SMOOTHING)
    except cv2.error:  # they have nothing in common to go by
        return 1.0
    inside = _moved(np.ones(first.shape, np.float32), place) > 0.99
    if inside.mean() < OVERLAP:
        return 1.0
    details = np.stack([_detail(first), _moved(_detail(second), place)])[:, inside]
    return float(np.clip(1 - np.dot(*_units(details)), 0, 2))


def _moved(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """``picture`` as it lies on the first one; 0 outside of it."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, place, picture.shape[::-1], flags=flags)


def _detail(picture: np.ndarray) -> np.ndarray:
    picture = picture.astype(np.float32)
    return picture - cv2.GaussianBlur(picture, (0, 0), DETAIL)


def _units(pictures: np.ndarray) -> np.ndarray:
    """Each picture as a row of mean 0 and length 1, so that products are correlations; zeros for a single colour."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-3)


def _sorted(pairs: pd.DataFrame) -> pd.DataFrame:
    return pairs.sort_values(["kind", "distance", "first", "second"], ignore_index=True)


def _no_pairs(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} can't be read as a table of near-duplicates ({reason}). Remove it and run the same command again, "
        "which makes it anew."
    )
