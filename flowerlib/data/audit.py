"""What is wrong with a folder of photos. Nothing is changed: it is up to a person what to do about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from flowerlib.data.download import ManifestRow, read_manifest
from flowerlib.data.duplicates import across_split, describe_pairs, find_pairs, pairs_file, pairs_of
from flowerlib.data.hashes import PhotoFile, remember
from flowerlib.data.listing import COLUMN_NAMES, Listing, class_of, describe_parts, list_files
from flowerlib.data.photos import FLOWERS, Difference, compare, inspect, locate, photos_fingerprint
from flowerlib.data.similarity import squeeze
from flowerlib.data.split import split_paths
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment

UNREADABLE = "unreadable"
NO_PHOTO = "not a photo"
TWO_LABELS = "identical files under two labels"
TWICE = "identical files in one class"


@dataclass(frozen=True)
class Problem:
    """One problem: its kind (a constant in this module), the relative paths it concerns, and the reason."""

    kind: str
    files: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Audit:
    """Readable photos per class, every problem, and what else is worth knowing.

    Attributes:
        root: the folder.
        counts: readable photos by class.
        problems: what is wrong with single files.
        pairs: the near-duplicates, as in `flowerlib.data.duplicates.find_pairs`.
        pairs_file: where they are listed.
        across: how many of them stand across the split of a run with the default settings.
        lacking: by side of that split, the classes that have no photo there.
        listing: the folder's files.
        difference: from the manifest, if one was given.
    """

    root: Path
    counts: dict[str, int]
    problems: tuple[Problem, ...]
    pairs: pd.DataFrame = field(compare=False)
    pairs_file: Path
    across: int
    lacking: dict[str, tuple[str, ...]]
    listing: Listing
    difference: Difference | None = None

    @property
    def usable(self) -> bool:
        """Whether a run would accept these photos."""
        return (
            len(self.counts) >= 2
            and not COLUMN_NAMES & set(self.counts)
            and all(self.counts.values())
            and all(problem.kind != UNREADABLE for problem in self.problems)
            and (self.difference is None or self.difference.same > 0)
        )

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.listing.parts:
            yield describe_parts(self.listing)
        yield f"{self.root}: {sum(self.counts.values()):,} readable photos in {len(self.counts)} classes"
        width = max(map(len, self.counts), default=0)
        yield from (f"  {name:{width}}  {count:6,}" for name, count in self.counts.items())
        if self.difference:
            yield f"{self.difference}."
        for kind, number in Counter(problem.kind for problem in self.problems).items():
            yield f"{kind.capitalize()}: {number:,}"
            for problem in self.problems:
                if problem.kind == kind:
                    yield f"  {' = '.join(problem.files)} ({problem.reason})"
        if not self.problems:
            yield "No problems."
        for side, names in self.lacking.items():
            if names:
                yield f"Classes without any photo for {side}, in a run with the default split: {', '.join(names)}."
        yield describe_pairs(self.pairs)
        if self.across:
            yield f"  Pairs with one photo on each side of the split: {self.across:,}."
        if self.pairs_file.exists():
            yield f"  {self.pairs_file} lists them."
        if not self.usable:
            yield (
                "A run would refuse these photos: it needs at least two classes, none of them called "
                f"{' or '.join(sorted(COLUMN_NAMES))}, photos in each, all of them readable, "
                "and for 'flowers' some of the paper's photos."
            )


def audit(root: Path, manifest: Iterable[ManifestRow] | None = None) -> Audit:
    """Read every file in a folder of class folders, and compare the photos with ``manifest`` if given.

    Whatever is remembered from earlier sessions, the files are read: this is how to check a disk.

    Raises:
        UserError: ``root`` is missing, empty or not a folder.
    """
    listing = list_files(root)
    squeezed = []
    files = inspect(root, listing.photos, decoded=lambda pixels: squeezed.append(squeeze(pixels)))
    remember(root, files)
    readable = [file for file in files if not file.problem]
    counts = Counter(class_of(file.path) for file in readable)
    problems = (
        *(Problem(UNREADABLE, (file.path,), file.problem) for file in files if file.problem),
        *(Problem(NO_PHOTO, (path,), reason) for path, reason in listing.unused.items()),
        *sorted(_identical_files(readable), key=lambda problem: (problem.kind, problem.files)),
    )
    fingerprint = photos_fingerprint(readable)
    pairs = pairs_of(fingerprint, lambda: _search(readable, squeezed))
    difference = None if manifest is None else compare(files, manifest)
    counts = {name: counts[name] for name in listing.classes}
    paths = sorted(file.path for file in readable)
    try:
        drawn = split_paths(paths, Experiment(), lambda: pairs)
        sides = {"training": drawn.train, "validation": drawn.validation, "a test": drawn.test}
    except UserError:  # too few photos: a run would refuse them
        sides = {}
    present = {side: {class_of(paths[index]) for index in indices} for side, indices in sides.items()}
    return Audit(
        root,
        counts,
        problems,
        pairs,
        pairs_file(fingerprint),
        len(across_split(pairs, {paths[index]: side for side, indices in sides.items() for index in indices})),
        {side: tuple(name for name in counts if name not in classes) for side, classes in present.items() if classes},
        listing,
        difference,
    )


def audit_source(source: str) -> Audit:
    """`audit` of a data source: 'flowers', which is compared with the paper's photos, 'synthetic' or a folder.

    Raises:
        UserError: the photos can't be found or downloaded.
    """
    name, root = locate(source)
    return audit(root, read_manifest() if name == FLOWERS else None)


def print_audit(source: str) -> int:
    """Print the audit of a data source; return the exit status: 0 if `flowerlib run` would accept the photos, else 1.

    Raises:
        UserError: the photos can't be found or downloaded.
    """
    result = audit_source(source)
    print(result)
    return 0 if result.usable else 1


def _search(files: Sequence[PhotoFile], squeezed: Sequence[np.ndarray]) -> pd.DataFrame:
    pictures = np.array(squeezed, np.uint8)
    return find_pairs([file.path for file in files], [file.sha256 for file in files], pictures)


def _identical_files(files: Iterable[PhotoFile]) -> Iterator[Problem]:
    copies = defaultdict(list)
    for file in files:
        copies[file.sha256].append(file)
    for same in copies.values():
        if len(same) > 1:
            labels = sorted({class_of(file.path) for file in same})
            kind = TWO_LABELS if len(labels) > 1 else TWICE
            yield Problem(kind, tuple(file.path for file in same), " and ".join(labels))
