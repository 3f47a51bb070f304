"""The split: which photos train, which validate, and which are set aside for a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flowerlib.data.duplicates import photo_pairs
from flowerlib.data.listing import TEST, TRAINING, VALIDATION, class_of, part_of
from flowerlib.data.photos import PhotoSet, fingerprint
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment

TRAINING_SHARE = 0.8  # section 3: int(.8 · 2,848) = 2,278 photos


@dataclass(frozen=True)
class Split:
    """Indices into the sorted paths of a `PhotoSet`, each int64 (n,).

    Attributes:
        train: photos to train on.
        validation: photos to choose by.
        test: photos held out from every choice; none, unless they are asked for.
        fingerprint: SHA-256 in hex over the paths for training and for validation.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    fingerprint: str


def split_photos(photos: PhotoSet, experiment: Experiment) -> Split:
    """Split the photos as the experiment's settings ``split``, ``split_seed``, ``test`` and ``fold`` say.

    Raises:
        UserError: one of the sides would have no photo, or ``test`` is asked for where the maker's split is kept.
    """
    return split_paths(photos.paths, experiment, lambda: photo_pairs(photos))


def split_paths(paths: Sequence[str], experiment: Experiment, pairs: Callable[[], pd.DataFrame]) -> Split:
    """`split_photos` of photos that are known by their sorted paths; ``pairs`` are their near-duplicates, if needed.

    The photos, those of the maker's ``test`` aside, are put in an order, which is cut: training photos first, then
    those for validation, then those for the test. The order is drawn by numpy's RandomState, whose streams are
    frozen (NEP 19): it is the same on every machine.
    """
    parts = np.array([part_of(path) or "" for path in paths])
    own_test = np.flatnonzero(parts == TEST)
    keeps_makers = experiment.split == "auto" and experiment.folds is None and VALIDATION in parts
    if experiment.test and (keeps_makers or len(own_test)):
        raise UserError(
            "test sets photos aside, and this folder came with a split of its own: leave out test"
            + (", or name a folder of class folders." if len(own_test) else ", or set split=random.")
        )
    if keeps_makers:
        return _checked(paths, np.flatnonzero(parts == TRAINING), np.flatnonzero(parts == VALIDATION), own_test)

    places = np.flatnonzero(parts != TEST)
    units = _groups(paths, pairs()) if experiment.split == "grouped" else np.arange(len(paths))
    order = places[np.random.RandomState(experiment.split_seed).permutation(len(places))]
    if experiment.split == "stratified":
        order = _interleaved(order, [class_of(paths[index]) for index in order])
    elif experiment.split == "grouped":
        order = _together(order, units)

    def cut(place: float) -> int:
        place = int(place)
        while 0 < place < len(order) and units[order[place]] == units[order[place - 1]]:
            place += 1
        return place

    end = cut(len(order) - int(experiment.test * len(order)))
    test = order[end:] if experiment.test else own_test
    if experiment.folds is not None:
        first, last = (cut(fold * len(order) / experiment.folds) for fold in (experiment.fold, experiment.fold + 1))
        return _checked(paths, np.concatenate([order[:first], order[last:]]), order[first:last], test[:0])
    middle = cut(TRAINING_SHARE * end)
    return _checked(paths, order[:middle], order[middle:end], test, tested=experiment.test > 0)


def _checked(
    paths: Sequence[str], train: np.ndarray, validation: np.ndarray, test: np.ndarray, *, tested: bool = False
) -> Split:
    for name, side in (("training", train), ("validation", validation), *([("a test", test)] if tested else [])):
        if not len(side):
            raise UserError(
                f"The split of {len(paths):,} photos leaves none for {name}. Add photos, or split another way."
            )
    sides = (*(paths[index] for index in train), "", *(paths[index] for index in validation))  # the rest is the test
    return Split(train.astype(np.int64), validation.astype(np.int64), test.astype(np.int64), fingerprint(sides))


def _interleaved(order: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The same photos, so mixed that each stretch of them has nearly its share of every class."""
    ranks = pd.Series(range(len(order))).groupby(list(classes))
    shares = (ranks.cumcount() + 0.5) / ranks.transform("size")
    return order[np.argsort(shares, kind="stable")]


def _together(order: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The same photos, those of a unit behind its first one."""
    firsts = pd.Series(range(len(order))).groupby(units[order]).transform("min")
    return order[np.argsort(firsts, kind="stable")]


def _groups(paths: Sequence[str], pairs: pd.DataFrame) -> np.ndarray:
    """A number for each photo, equal for photos that pairs of near-duplicates connect."""
    import scipy.sparse.csgraph  # other splits don't need it

    place = {path: index for index, path in enumerate(paths)}
    first, second = ([place[path] for path in pairs[column]] for column in ("first", "second"))
    edges = scipy.sparse.coo_array((np.ones(len(pairs)), (first, second)), shape=(len(paths), len(paths)))
    return scipy.sparse.csgraph.connected_components(edges, directed=False)[1]
