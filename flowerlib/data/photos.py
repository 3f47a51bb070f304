"""The photos: where they come from, which files belong to them, and how they are split."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flowerlib.data.cache import PixelCache, find_cache, new_cache
from flowerlib.data.decoding import MAX_BYTES, SUFFIXES, decode, looks_like_a_photo, why_unreadable
from flowerlib.data.download import ManifestRow, fetch_flowers, read_manifest
from flowerlib.data.hashes import PhotoFile, recall, remember, settled_stamp
from flowerlib.data.threads import in_threads
from flowerlib.errors import UserError, one_line
from flowerlib.files import DATA, is_printable, user_path
from flowerlib.progress import progress_bar

FLOWERS, SYNTHETIC = "flowers", "synthetic"
HIDDEN = "hidden"
SYSTEM_NAMES = frozenset(("__macosx", "desktop.ini", "thumbs.db"))  # hidden on the system that makes them
TRAINING_SHARE = 0.8  # section 3: int(.8 · 2,848) = 2,278 photos


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Readable photos in class folders.

    Attributes:
        name: 'flowers', 'synthetic', or the folder's name.
        root: the folder that holds the class folders; absolute.
        classes: names in alphabetical order; a label is an index into them.
        paths: n paths, relative to root and sorted, such as 'daisy/x.jpg'.
        labels: int64, shape (n,).
        fingerprint: SHA-256 in hex over every path and its file's bytes.
        pixels: the decoded photos.
        skipped: paths that were left out because they can't be read, each with the reason.
        hashes: SHA-256 in hex of each photo's file.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    fingerprint: str
    pixels: PixelCache
    skipped: dict[str, str]
    hashes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> np.ndarray:
        """Return the pixels of photo ``index``, upright and at its original size: uint8 (height, width, 3).

        Raises:
            UserError: they are no longer in the cache.
        """
        try:
            return self.pixels.read(index)
        except (OSError, ValueError) as error:  # no file, or a shorter one
            raise UserError(
                f"The decoded pixels of {self.paths[index]} can't be read from {self.pixels.file} any more "
                f"({one_line(error)}). Run the same command again: it decodes the photos again."
            ) from error


@dataclass(frozen=True)
class Split:
    """Indices into a `PhotoSet`: int64, shapes (int(.8 n),) and (the rest,); and their fingerprint."""

    train: np.ndarray
    validation: np.ndarray
    fingerprint: str


@dataclass(frozen=True)
class Listing:
    """The files of a folder of class folders, all relative to it and sorted.

    Attributes:
        classes: names of the class folders.
        photos: files in class folders that are photos, by their suffix or by their content.
        unused: every other file, and folders within class folders, each with the reason why it isn't used.
    """

    classes: tuple[str, ...]
    photos: tuple[str, ...]
    unused: dict[str, str]


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


def load_photos(source: str, skip_bad: bool = False) -> PhotoSet:
    """Find the photos, fetching or generating them if necessary, and decode every one, once and for all.

    A file that an earlier call has read is not read again until it changes.

    Args:
        source: 'flowers', 'synthetic', or a folder of class folders.
        skip_bad: leave out photos that can't be read instead of refusing them.

    Raises:
        UserError: no such folder, fewer than two classes, a class without photos, unreadable photos, or for
            'flowers' a folder with none of the paper's photos.
    """
    name, root = locate(source)
    listing = list_files(root)
    _say_what_is_left_out(listing)
    files = _read_unknown(root, listing.photos, decode=skip_bad)
    skipped = _unreadable(files) if skip_bad else {}
    if skipped:
        files = tuple(file for file in files if file.path not in skipped)
        listing = replace(listing, photos=tuple(file.path for file in files))
        print(f"{len(skipped):,} photos that can't be read are left out: {_with_reasons(skipped)}")
    _refuse_too_few(root, listing, skipped)
    _refuse_unreadable(root, files)
    if name == FLOWERS:
        _compare_with_paper(root, files)
    labels = [listing.classes.index(path.split("/")[0]) for path in listing.photos]
    fingerprint = photos_fingerprint(files)
    pixels = find_cache(fingerprint) or _decode_all(root, files, fingerprint)
    return PhotoSet(
        name,
        root,
        listing.classes,
        listing.photos,
        np.array(labels, np.int64),
        fingerprint,
        pixels,
        skipped,
        tuple(file.sha256 for file in files),
    )


def photos_fingerprint(files: Iterable[PhotoFile | ManifestRow]) -> str:
    """SHA-256 in hex over every path and its file's hash, in the order of the paths."""
    ordered = sorted(files, key=lambda file: file.path)
    return _fingerprint(part for file in ordered for part in (file.path, file.sha256))


def paper_fingerprint() -> str:
    """The fingerprint of the paper's photos, all of them and no others, by the manifest."""
    return photos_fingerprint(read_manifest())


def split(photos: PhotoSet, seed: int) -> Split:
    """Draw int(.8 n) photos for training and leave the rest for validation.

    The permutation of the sorted paths is the same on every machine: numpy has frozen RandomState's streams
    (NEP 19).
    """
    return split_paths(photos.paths, seed)


def split_paths(paths: Sequence[str], seed: int) -> Split:
    """`split` of photos that are known by their sorted paths only."""
    order = np.random.RandomState(seed).permutation(len(paths)).astype(np.int64)
    train, validation = np.split(order, [int(TRAINING_SHARE * len(paths))])
    sides = (*(paths[i] for i in train), "", *(paths[i] for i in validation))
    return Split(train, validation, _fingerprint(sides))


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


def list_files(root: Path) -> Listing:
    """Sort a folder's files into photos and unused files.

    Photos lie directly in a class folder. Folders inside it are left out, not searched: otherwise a folder with
    'train' and 'val' would pass for a data set with these two classes.

    Raises:
        UserError: ``root`` is missing, empty, not a folder or unreadable, or a name in it is not text.
    """
    classes, photos, unused = [], [], {}
    try:
        for entry in root.iterdir():
            if _is_hidden(entry):
                unused[entry.name] = HIDDEN
            elif not entry.is_dir():
                unused[entry.name] = "not in a class folder"
            else:
                classes.append(entry.name)
                for file in entry.iterdir():
                    path = f"{entry.name}/{file.name}"
                    if reason := _why_unused(file):
                        unused[path] = reason
                    else:
                        photos.append(path)
    except OSError as error:
        raise UserError(
            f"The photos' folder {root} can't be read ({one_line(error)}). A data source is 'flowers', "
            "'synthetic' or a folder of class folders; FLOWERLIB_DATA, where set, is the folder of "
            "'flowers'."
        ) from error
    if not (classes or unused):
        raise UserError(f"The photos' folder {root} is empty. Put a folder of photos into it for each class.")
    if odd := [name for name in (root.name, *classes, *photos) if not is_printable(name)]:
        raise UserError(
            f"In {root} rename {', '.join(map(ascii, odd))}: a name that has control characters, or is not in "
            "UTF-8, can't be written to a run's tables."
        )
    return Listing(tuple(sorted(classes)), tuple(sorted(photos)), dict(sorted(unused.items())))


def inspect(
    root: Path, paths: Sequence[str], decoded: Callable[[np.ndarray], object] | None
) -> tuple[PhotoFile, ...]:
    """Read each file once, in threads, to hash it and, if asked, to decode it in full.

    Args:
        root: the folder.
        paths: the files, relative to it.
        decoded: is called with the pixels of each readable photo, in order; None: the files are only hashed.
    """

    def read(path: str) -> tuple[PhotoFile, np.ndarray | None]:
        sha256, pixels = "", None
        stamp = settled_stamp(root / path)  # before reading: what changes afterwards gets another one
        try:
            data = _read_bytes(root / path)
            sha256 = hashlib.sha256(data).hexdigest()
            if decoded:
                pixels = np.asarray(decode(data))
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
            return PhotoFile(path, sha256, why_unreadable(error), bool(decoded), stamp), None
        return PhotoFile(path, sha256, None, bool(decoded), stamp), pixels

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


def _decode_all(root: Path, files: Sequence[PhotoFile], fingerprint: str) -> PixelCache:
    """Decode the photos into a new cache, unless another process has just done so."""
    with new_cache(fingerprint) as writer:
        if writer is not None:
            decoded = inspect(root, [file.path for file in files], decoded=writer.append)
            remember(root, decoded)
            _refuse_unreadable(root, decoded)
            changed = [now.path for before, now in zip(files, decoded, strict=True) if now.sha256 != before.sha256]
            if changed:
                raise UserError(
                    f"In {root} photos changed while they were read: {', '.join(changed)}. Run the same command "
                    "again when they no longer change."
                )
    return find_cache(fingerprint)


def _read_unknown(root: Path, paths: Sequence[str], decode: bool) -> tuple[PhotoFile, ...]:
    """What is known about each file; only those are read that are new, have changed, or must still be decoded."""
    files = {path: file for path, file in recall(root, paths).items() if file.decoded or not decode}
    unknown = [path for path in paths if path not in files]
    files |= {file.path: file for file in inspect(root, unknown, decoded=_ignore if decode else None)}
    files_in_order = tuple(files[path] for path in paths)
    if unknown:
        remember(root, files_in_order)
    return files_in_order


def _ignore(pixels: np.ndarray) -> None:
    """For `inspect`, where it matters only whether a photo can be decoded."""


def _read_bytes(file: Path) -> bytes:
    if (size := file.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}: make it smaller")
    return file.read_bytes()


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


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in SYSTEM_NAMES


def _why_unused(file: Path) -> str | None:
    if _is_hidden(file):
        return HIDDEN
    if file.is_dir():
        return "a folder within a class folder"
    if not file.is_file() and file.exists():
        return "a pipe or a device, not a file"  # reading it might never end
    if file.suffix.lower() not in SUFFIXES and not looks_like_a_photo(file):
        return f"not a photo that is read here ({file.suffix or 'no suffix'})"
    return None


def _say_what_is_left_out(listing: Listing) -> None:
    """Count the files that a run leaves out, by reason, each with an example; hidden files are no loss."""
    examples: dict[str, list[str]] = {}
    for path, reason in listing.unused.items():
        if reason != HIDDEN:
            examples.setdefault(reason, []).append(path)
    for reason, paths in examples.items():
        print(f"left out: {len(paths):,}, such as {paths[0]}: {reason}")


def _refuse_too_few(root: Path, listing: Listing, skipped: dict[str, str]) -> None:
    if len(listing.classes) < 2:
        found = f"only the class folder '{listing.classes[0]}'" if listing.classes else "no class folder"
        raise UserError(
            f"{root} holds {found}, and a classifier needs at least two classes. Name the folder that holds "
            f"a folder of photos for each class.{_suggestion(root, listing)}"
        )
    if reserved := {"photo", "label"} & set(listing.classes):
        raise UserError(
            f"In {root} rename the class folder '{min(reserved)}': predictions.csv has a column of that name."
        )
    filled = {path.split("/")[0] for path in listing.photos}
    if empty := [name for name in listing.classes if name not in filled]:
        kind = "readable photos" if skipped else "photos"
        raise UserError(
            f"In {root} these class folders hold no {kind}: {', '.join(empty)}. Put photos "
            f"({', '.join(sorted(SUFFIXES))}) directly into them, or remove them.{_suggestion(root, listing)}"
        )


def _suggestion(root: Path, listing: Listing) -> str:
    """Ask for the folder one level up or down, where that is a folder of class folders."""
    for folder in [root / name for name in listing.classes] or [root.parent]:
        if _holds_class_folders(folder):
            return f" Did you mean {folder}?"
    return ""


def _holds_class_folders(folder: Path) -> bool:
    try:
        holding = (
            any(file.suffix.lower() in SUFFIXES for file in entry.iterdir())
            for entry in folder.iterdir()
            if entry.is_dir() and not _is_hidden(entry)
        )
        return sum(holding) > 1
    except OSError:  # a suggestion is not worth an error of its own
        return False


def _refuse_unreadable(root: Path, files: Sequence[PhotoFile]) -> None:
    if bad := _unreadable(files):
        raise UserError(
            f"In {root} {len(bad):,} of {len(files):,} photos can't be read: {_with_reasons(bad)}. "
            "Replace them, remove them from the folder, or leave them out of this run with --set skip_bad=true."
        )


def _unreadable(files: Iterable[PhotoFile]) -> dict[str, str]:
    return {file.path: file.problem for file in files if file.problem}


def _with_reasons(bad: dict[str, str]) -> str:
    return ", ".join(f"{path} ({problem})" for path, problem in bad.items())


def _compare_with_paper(root: Path, files: Iterable[PhotoFile]) -> None:
    difference = compare(files, manifest := read_manifest())
    if not difference.same:
        raise UserError(
            f"{root} holds none of the paper's {len(manifest):,} photos, which 'flowers' stands for. For "
            "your own photos use --data FOLDER and leave FLOWERLIB_DATA unset."
        )
    if difference.same < max(len(manifest), len(files)):
        print(f"{root} is not exactly the paper's data set: {difference}.")


def _fingerprint(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(os.fsencode(part) + b"\0")  # no path contains a zero byte
    return digest.hexdigest()
