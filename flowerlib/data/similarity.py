"""How alike two pictures are: the search behind `flowerlib.data.duplicates`.

All pairs are compared at a glance, as pictures of 8×8 pixels; those that look alike are laid over each other and
compared in detail.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from flowerlib.data.threads import in_threads
from flowerlib.progress import progress_bar

SIDE = 64  # pixels: of the grey pictures that are compared in detail
COARSE_SIDE = 8  # pixels: of those that decide which pairs are compared in detail

# The smallest correlation of two coarse pictures for a comparison in detail. Of 300 of the paper's photos, cropped by
# 5 % on each side, all correlate more with the original; of its 8 million pairs, mirrored or not, 6,157 do. A limit
# of .45 makes twelve times as many comparisons and finds one more pair.
MIN_COARSE_CORRELATION = 0.65

# Comparisons in detail. Two cores make about 1,000 a second, and their number grows with the square of the photos.
MAX_COMPARISONS = 200_000
# Where there would be more: for each photo, of those after it, so that no group of photos takes them all.
CLOSEST = 20

# Pixels. What is finer than a blur of this width tells two dandelions apart; their outlines are all alike.
DETAIL_WIDTH = 1.5

NOISE_LEVEL = 2.0  # grey levels: weaker details count less
MIN_OVERLAP = 0.6  # share of the first picture that the second must cover once they are laid over each other

_ECC_CRITERIA = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 10, 1e-3)
_ECC_BLUR = 5  # pixels: blurred, pictures that lie further apart still find each other
_BLOCK = 1 << 23  # coarse correlations in memory at once: 32 MB


def squeeze(pixels: np.ndarray) -> np.ndarray:
    """The whole photo, squeezed into a grey square: uint8 (SIDE, SIDE), from uint8 RGB (height, width, 3)."""
    return cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def compare_all(pictures: np.ndarray) -> tuple[list[tuple[int, int, float]], int]:
    """Compare every two pictures that look alike at a glance, up to `MAX_COMPARISONS`.

    Args:
        pictures: uint8 (n, SIDE, SIDE), of `squeeze`.

    Returns:
        Two indices, the smaller first, and the distance of these pictures: 0 to 2, see `distance`. A pair that also
        looks alike with one of the two mirrored comes twice. And how many comparisons were left out, those with the
        smallest coarse correlations.
    """
    candidates, left_out = find_candidates(pictures)
    distances = in_threads(lambda candidate: distance(*_oriented(pictures, *candidate)), candidates)
    bar = progress_bar(distances, desc="Comparing photos", total=len(candidates), unit="pair")
    return [(first, second, found) for (first, second, _), found in zip(candidates, bar, strict=True)], left_out


def find_candidates(pictures: np.ndarray) -> tuple[list[tuple[int, int, int]], int]:
    """Pairs that look alike at a glance: two indices, the smaller first, and 1 if the second is to be mirrored.

    Returns:
        The pairs, `MAX_COMPARISONS` at most, and how many more there are.
    """
    if len(pictures) < 2:
        return [], 0
    pairs, closeness, total = _alike(pictures, closest=None)
    if total > MAX_COMPARISONS:
        pairs, closeness, total = _alike(pictures, closest=CLOSEST)
    if len(pairs) > MAX_COMPARISONS:
        pairs = pairs[np.sort(np.argpartition(closeness, -MAX_COMPARISONS)[-MAX_COMPARISONS:])]
    return list(map(tuple, pairs.tolist())), total - len(pairs)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """1 - the correlation of the details of two pictures where they overlap, once one is laid over the other.

    It is laid over by the affine map that maximizes their correlation (Evangelidis and Psarakis, "Parametric Image
    Alignment Using Enhanced Correlation Coefficient Maximization", 2008), as implemented in OpenCV.

    Args:
        first, second: uint8 (SIDE, SIDE).

    Returns:
        From 0 to 2. If no map is found, or it moves one picture off the other, they are compared edge on edge.
    """
    details = _details(first, DETAIL_WIDTH), _details(second, DETAIL_WIDTH)
    unaligned = _correlation_distance(*details)
    try:
        _, affine = cv2.findTransformECC(
            first, second, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, _ECC_CRITERIA, None, _ECC_BLUR
        )
    except cv2.error:  # they have nothing in common to be aligned by
        return unaligned
    overlap = _warped(np.ones_like(details[1]), affine) > 0.99
    if overlap.mean() < MIN_OVERLAP:
        return unaligned
    return min(unaligned, _correlation_distance(details[0][overlap], _warped(details[1], affine)[overlap]))


def _alike(pictures: np.ndarray, closest: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """As `find_candidates`, the ``closest`` of each picture, mirrored or not; if None, all up to the maximum.

    Returns:
        Pairs, int32 (k, 3); their coarse correlations, (k,); how many there are if none is left out. If ``closest``
        is None and there are more than `MAX_COMPARISONS`, the search stops at once and the results are incomplete.
    """
    found, total = [], 0
    for correlations, start, mirror in _coarse_correlations(pictures):
        alike = correlations > MIN_COARSE_CORRELATION
        total += int(np.count_nonzero(alike))
        if closest is not None:
            _keep_closest(alike, correlations, closest)
        elif total > MAX_COMPARISONS:
            break
        first, second = np.nonzero(alike)
        pairs = np.stack([first + start, second + start, np.full_like(first, mirror)], axis=1, dtype=np.int32)
        found.append((pairs, correlations[alike]))
    empty = np.empty((0, 3), np.int32), np.empty(0, np.float32)
    pairs, closeness = (np.concatenate(parts) for parts in zip(empty, *found, strict=True))
    return pairs, closeness, total


def _coarse_correlations(pictures: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """Correlations of coarse pictures, block by block: never all n×n are in memory.

    Yields:
        Float32 (m, n - start): of pictures ``start`` to ``start`` + m with all from ``start`` on, 0 where a pair has
        its turn elsewhere; ``start``; and 1 where the second picture is mirrored.
    """
    coarse = np.stack([_coarse(picture) for picture in pictures])
    normal, mirrored = _standardized(coarse), _standardized(coarse[:, :, ::-1])
    rows = max(1, _BLOCK // len(pictures))
    for start in range(0, len(pictures), rows):
        for mirror, second in enumerate((normal, mirrored)):
            correlations = normal[start : start + rows] @ second[start:].T
            correlations[:, :rows] = np.triu(correlations[:, :rows], 1)
            yield correlations, start, mirror


def _keep_closest(alike: np.ndarray, correlations: np.ndarray, closest: int) -> None:
    """In the mask ``alike``, leave each row no more than its ``closest`` largest correlations; in place."""
    crowded = np.flatnonzero(np.count_nonzero(alike, axis=1) > closest)
    if len(crowded):
        columns = np.argpartition(correlations[crowded], -closest, axis=1)[:, -closest:]
        alike[crowded] = False
        alike[crowded[:, None], columns] = True


def _oriented(pictures: np.ndarray, first: int, second: int, mirror: int) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures, the second mirrored left to right if asked."""
    return pictures[first], np.ascontiguousarray(pictures[second, :, ::-1]) if mirror else pictures[second]


def _correlation_distance(first: np.ndarray, second: np.ndarray) -> float:
    """1 - the correlation; 1 where one of the two has a single colour."""
    return float(np.clip(1 - np.dot(*_standardized(np.stack([first, second]))), 0, 2))


def _warped(picture: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """``picture`` as it lies over the first one; 0 outside it."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, affine, picture.shape[::-1], flags=flags)


def _coarse(picture: np.ndarray) -> np.ndarray:
    """What can be seen of a picture at a glance, in any light: float32 (COARSE_SIDE, COARSE_SIDE)."""
    details = _details(picture, SIDE / COARSE_SIDE)
    return cv2.resize(details, (COARSE_SIDE, COARSE_SIDE), interpolation=cv2.INTER_AREA)


def _details(picture: np.ndarray, width: float) -> np.ndarray:
    """What is finer than a blur of ``width`` pixels, relative to the strength of the details around it.

    Otherwise a single sharp edge, such as that of a frame, would outweigh a whole flower.
    """
    picture = picture.astype(np.float32)
    details = picture - cv2.GaussianBlur(picture, (0, 0), width)
    strength = np.sqrt(cv2.GaussianBlur(details * details, (0, 0), width))
    return details / (strength + NOISE_LEVEL)


def _standardized(pictures: np.ndarray) -> np.ndarray:
    """Each picture as a row of mean 0 and length 1, so that products are correlations; zeros for a single colour."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-3)
