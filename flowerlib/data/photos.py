"""The photos: where they come from, what is read from them, and where their pixels are kept."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flowerlib.data.cache import CHANNELS, PixelCache, find_cache, new_cache
from flowerlib.data.decoding import (
    KEPT_SIDE,
    SUFFIXES,
    decode,
    kept_side,
    kept_size,
    photo_size,
    read_bytes,
    why_unreadable,
)
from flowerlib.data.download import ManifestRow, fetch_flowers, read_manifest
from flowerlib.data.hashes import PhotoFile, recall, remember, settled_stamp
from flowerlib.data.listing import COLUMN_NAMES, HIDDEN, Listing, class_of, describe_parts, list_files, suggest_folder
from flowerlib.data.threads import in_threads
from flowerlib.errors import UserError, one_line
from flowerlib.experiment import Experiment
from flowerlib.files import DATA, user_path
from flowerlib.progress import progress_bar

FLOWERS, SYNTHETIC = "flowers", "synthetic"
MOST_NAMED = 10  # photos in one message


@dataclass(frozen=True, eq=False)
class Originals:
    """The pixels of photos that are not cached: decoded each time that they are asked for.

    Attributes:
        file: the folder of photos.
        paths: of the photos, relative to it.
        side: of a photo whose shorter side is longer, this is what is kept, in pixels.
    """

    file: Path
    paths: tuple[str, ...]
    side: int

    def read(self, index: int) -> np.ndarray:
        """Photo ``index``: uint8 (height, width, 3)."""
        return np.asarray(decode(read_bytes(self.file / self.paths[index]), self.side))


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Readable photos in class folders.

    Attributes:
        name: 'flowers', 'synthetic', or the folder's name.
        root: the folder that holds the class folders, or the parts that hold them; absolute.
        classes: names in alphabetical order; a label is an index into them.
        paths: n paths, relative to root and sorted, such as 'daisy/x.jpg'.
        labels: int64, shape (n,).
        fingerprint: SHA-256 in hex over every path and its file's bytes.
        pixels: the decoded photos.
        skipped: paths that were left out, each with the reason.
        hashes: SHA-256 in hex of each photo's file.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    fingerprint: str
    pixels: PixelCache | Originals
    skipped: dict[str, str]
    hashes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> np.ndarray:
        """Return the pixels of photo ``index``, upright: uint8 (height, width, 3).

        Raises:
            UserError: they are no longer where they were.
        """
        try:
            return self.pixels.read(index)
        except Exception as error:  # no file, or a shorter one; or whatever Pillow raises for one that has changed
            raise UserError(
                f"The pixels of {self.paths[index]} can't be read from {self.pixels.file} any more "
                f"({one_line(error)}). Run the same command again: it reads the photos again."
            ) from error


@dataclass(frozen=True)
class Difference:
    """How a folder's photos differ from the manifest: counts of paths."""

    same: int
    missing: int
    changed: int
    extra: int

    def __str__(self) -> str:
        return (
            f"{self.same:,} photos as in the paper's data set, {self.missing:,} missing, "
            f"{self.changed:,} changed, {self.extra:,} extra"
        )


def photos_for(experiment: Experiment) -> PhotoSet:
    """The photos that an experiment's settings name; see `load_photos`."""
    return load_photos(
        experiment.data,
        skip_bad=experiment.skip_bad,
        exclude=experiment.exclude,
        cache=experiment.cache,
        side=kept_side(experiment.image_size),
    )


def load_photos(
    source: str,
    *,
    skip_bad: bool = False,
    exclude: str | None = None,
    cache: bool = True,
    side: int = KEPT_SIDE,
) -> PhotoSet:
    """Find the photos, fetching or generating them if necessary, and decode every one, once and for all.

    A file that an earlier call has read is not read again until it changes.

    Args:
        source: 'flowers', 'synthetic', or a folder of class folders.
        skip_bad: leave out photos that can't be read instead of refusing them.
        exclude: a file that lists photos to leave out, one relative path a line.
        cache: keep the pixels on the disk; else photos are decoded whenever they are needed.
        side: of a photo whose shorter side is longer, this is what is kept, in pixels.

    Raises:
        UserError: no such folder, fewer than two classes, a class without photos, unreadable photos, a list with
            other photos, or for 'flowers' a folder with none of the paper's photos.
    """
    name, root = locate(source)
    listing = list_files(root)
    if listing.parts:
        print(describe_parts(listing))
    say_what_is_left_out(listing.unused)
    skipped = {} if exclude is None else _read_exclusions(user_path(exclude), listing)
    paths = [path for path in listing.photos if path not in skipped]
    files = _read_unknown(root, paths, side if skip_bad or not cache else None)
    if skip_bad and (bad := _unreadable(files)):
        files = tuple(file for file in files if file.path not in bad)
        print(f"{len(bad):,} photos that can't be read are left out: {_with_reasons(bad)}")
        skipped |= bad
    listing = replace(listing, photos=tuple(file.path for file in files))
    _refuse_too_few(root, listing, skipped)
    _refuse_unreadable(root, files)
    if name == FLOWERS:
        _compare_with_paper(root, files)
    labels = [listing.classes.index(class_of(path)) for path in listing.photos]
    whole = photos_fingerprint(files)
    if cache:
        pixels = find_cache(whole, side) or _decode_all(root, files, whole, side)
    else:
        pixels = Originals(root, listing.photos, side)
    return PhotoSet(
        name,
        root,
        listing.classes,
        listing.photos,
        np.array(labels, np.int64),
        whole,
        pixels,
        skipped,
        tuple(file.sha256 for file in files),
    )


def photos_fingerprint(files: Iterable[PhotoFile | ManifestRow]) -> str:
    """SHA-256 in hex over every path and its file's hash, in the order of the paths."""
    ordered = sorted(files, key=lambda file: file.path)
    return fingerprint(part for file in ordered for part in (file.path, file.sha256))


def fingerprint(parts: Iterable[str]) -> str:
    """SHA-256 in hex over paths and other texts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(os.fsencode(part) + b"\0")  # no path contains a zero byte
    return digest.hexdigest()


def paper_fingerprint() -> str:
    """The fingerprint of the paper's photos, all of them and no others, by the manifest."""
    return photos_fingerprint(read_manifest())


def locate(source: str) -> tuple[str, Path]:
    """Return a source's name and absolute folder; 'flowers' are fetched and 'synthetic' generated if need be.

    Only these two words, and the project's own folders for them, mean our data: any other folder with such a name
    becomes 'own-flowers' or 'own-synthetic', so that no report mistakes it for ours.
    """
    if source == FLOWERS:
        return FLOWERS, _flowers_folder()
    if source == SYNTHETIC:
        return SYNTHETIC, _synthetic_folder()
    folder = user_path(source)
    mistakable = folder.name in (FLOWERS, SYNTHETIC) and folder.parent != DATA.resolve()
    return f"own-{folder.name}" if mistakable else folder.name, folder


def inspect(
    root: Path, paths: Sequence[str], decoded: Callable[[np.ndarray], object] | None, side: int = KEPT_SIDE
) -> tuple[PhotoFile, ...]:
    """Read each file once, in threads, to hash it and, if asked, to decode it in full.

    Args:
        root: the folder.
        paths: the files, relative to it.
        decoded: is called with the pixels of each readable photo, in order; None: the files are only hashed.
        side: the shorter side that is kept of a larger photo, in pixels.
    """

    def read(path: str) -> tuple[PhotoFile, np.ndarray | None]:
        sha256, size, pixels, problem = "", None, None, None
        stamp = settled_stamp(root / path)  # before reading: what changes afterwards gets another one
        try:
            data = read_bytes(root / path)
            sha256, size = hashlib.sha256(data).hexdigest(), photo_size(data)
            if decoded:
                pixels = np.asarray(decode(data, side))
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
            problem = why_unreadable(error)
        return PhotoFile(path, sha256, problem, bool(decoded), size, stamp), pixels

    files = []
    description = "Decoding photos" if decoded else "Reading photos"
    results = in_threads(read, paths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about odd metadata in photos that it can read
        for file, pixels in progress_bar(results, desc=description, total=len(paths), unit="photo"):
            files.append(file)
            if pixels is not None:
                decoded(pixels)
    return tuple(files)


def compare(files: Iterable[PhotoFile], manifest: Iterable[ManifestRow]) -> Difference:
    """Compare photos with the manifest, path by path."""
    ours = {file.path: file.sha256 for file in files}
    theirs = {row.path: row.sha256 for row in manifest}
    common = ours.keys() & theirs.keys()
    same = sum(ours[path] == theirs[path] for path in common)
    return Difference(same, len(theirs) - len(common), len(common) - same, len(ours) - len(common))


def _decode_all(root: Path, files: Sequence[PhotoFile], whole: str, side: int) -> PixelCache:
    """Decode the photos into a new cache, unless another process has just done so."""
    sizes = (kept_size(*file.size, side) for file in files if file.size)
    needed = sum(CHANNELS * width * height for width, height in sizes)
    with new_cache(whole, side, needed) as writer:
        if writer is not None:
            decoded = inspect(root, [file.path for file in files], writer.append, side)
            remember(root, decoded)
            _refuse_unreadable(root, decoded)
            changed = [now.path for before, now in zip(files, decoded, strict=True) if now.sha256 != before.sha256]
            if changed:
                raise UserError(
                    f"In {root} photos changed while they were read: {one_line(', '.join(changed))}. Run the same "
                    "command again when they no longer change."
                )
    return find_cache(whole, side)


def _read_unknown(root: Path, paths: Sequence[str], decode_side: int | None) -> tuple[PhotoFile, ...]:
    """What is known about each file; only those are read that are new, have changed, or must still be decoded."""
    files = {path: file for path, file in recall(root, paths).items() if file.decoded or decode_side is None}
    unknown = [path for path in paths if path not in files]
    decoded = None if decode_side is None else lambda pixels: None  # it matters only whether they can be decoded
    files |= {file.path: file for file in inspect(root, unknown, decoded, decode_side or KEPT_SIDE)}
    files_in_order = tuple(files[path] for path in paths)
    if unknown:
        remember(root, files_in_order)
    return files_in_order


def _read_exclusions(file: Path, listing: Listing) -> dict[str, str]:
    """The photos that a file lists, a line each, with that as the reason why they are left out."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The list of photos to exclude, {file}, can't be read: {one_line(error)}.") from error
    listed = [line for line in lines if line and not line.startswith("#")]
    if unknown := sorted(set(listed) - set(listing.photos)):
        raise UserError(
            f"{file} excludes photos that are not there: {one_line(', '.join(unknown))}. Write each as its path "
            "below that of the photos, such as 'rose/1.jpg' or 'train/rose/1.jpg', on a line of its own."
        )
    print(f"{len(set(listed)):,} photos are left out because {file} lists them.")
    return dict.fromkeys(listed, f"listed in {file.name}")


def bytes_to_fetch(source: str) -> int:
    """How much `load_photos` would download for a source: the paper's photos, unless they are here."""
    here = source != FLOWERS or os.environ.get("FLOWERLIB_DATA") or (DATA / FLOWERS).is_dir()
    return 0 if here else sum(row.bytes for row in read_manifest())


def _flowers_folder() -> Path:
    if folder := os.environ.get("FLOWERLIB_DATA"):
        return user_path(folder)
    folder = DATA / FLOWERS
    if not folder.is_dir():
        fetch_flowers(folder)
    return folder


def _synthetic_folder() -> Path:
    from flowerlib.data.synthetic import write_synthetic  # the generator is needed once

    folder = DATA / SYNTHETIC
    if not folder.is_dir():
        write_synthetic(folder)
    return folder


def say_what_is_left_out(unused: Mapping[str, str]) -> None:
    """Count the files that are left out, by reason, each with an example; hidden files are no loss."""
    examples: dict[str, list[str]] = {}
    for path, reason in unused.items():
        if reason != HIDDEN:
            examples.setdefault(reason, []).append(path)
    for reason, paths in examples.items():
        print(f"left out: {len(paths):,}, such as {paths[0]}: {reason}")


def _refuse_too_few(root: Path, listing: Listing, skipped: dict[str, str]) -> None:
    if len(listing.classes) < 2:
        found = f"only the class folder '{listing.classes[0]}'" if listing.classes else "no class folder"
        raise UserError(
            f"{root} holds {found}, and a classifier needs at least two classes. Name the folder that holds "
            f"a folder of photos for each class.{suggest_folder(root, listing)}"
        )
    if reserved := COLUMN_NAMES & set(listing.classes):
        raise UserError(
            f"In {root} rename the class folder '{min(reserved)}': tables have a column of that name beside those of "
            "the classes."
        )
    filled = {class_of(path) for path in listing.photos}
    if empty := [name for name in listing.classes if name not in filled]:
        kind = "readable photos" if skipped else "photos"
        raise UserError(
            f"In {root} these class folders hold no {kind}: {', '.join(empty)}. Put photos "
            f"({', '.join(sorted(SUFFIXES))}) directly into them, or remove them.{suggest_folder(root, listing)}"
        )


def _refuse_unreadable(root: Path, files: Sequence[PhotoFile]) -> None:
    if bad := _unreadable(files):
        raise UserError(
            f"In {root} {len(bad):,} of {len(files):,} photos can't be read: {_with_reasons(bad)}. "
            "Replace them, remove them from the folder, or leave them out of this run with --set skip_bad=true."
        )


def _unreadable(files: Iterable[PhotoFile]) -> dict[str, str]:
    return {file.path: file.problem for file in files if file.problem}


def _with_reasons(bad: dict[str, str]) -> str:
    named = ", ".join(f"{path} ({problem})" for path, problem in list(bad.items())[:MOST_NAMED])
    return named if len(bad) <= MOST_NAMED else f"{named} and others, which flowerlib data lists"


def _compare_with_paper(root: Path, files: Iterable[PhotoFile]) -> None:
    difference = compare(files, manifest := read_manifest())
    if not difference.same:
        raise UserError(
            f"{root} holds none of the paper's {len(manifest):,} photos, which 'flowers' stands for. For "
            "your own photos use --data FOLDER and leave FLOWERLIB_DATA unset."
        )
    if difference.same < max(len(manifest), len(files)):
        print(f"{root} is not exactly the paper's data set: {difference}.")
