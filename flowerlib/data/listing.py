"""Which files of a folder are photos, and the class and part of the data set that each belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowerlib.data.decoding import SUFFIXES, looks_like_a_photo
from flowerlib.errors import UserError, one_line
from flowerlib.files import is_printable

HIDDEN = "hidden"
COLUMN_NAMES = {"photo", "label", "unsure"}  # of predictions.csv and answers, in which each class has a column
SYSTEM_NAMES = frozenset(("__macosx", "desktop.ini", "thumbs.db"))  # hidden on the system that makes them

# the usual names of the folders in a data set that its maker has split
TRAINING, VALIDATION, TEST = "training", "validation", "test"
PARTS = {"train": TRAINING, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}


@dataclass(frozen=True)
class Listing:
    """The files of a folder of photos, all relative to it and sorted.

    Attributes:
        classes: names of the class folders.
        photos: files in class folders that are photos, by their suffix or by their content: ``class/file``, or
            ``part/class/file`` where the folder has parts.
        unused: every other file, and folders within class folders, each with the reason why it isn't used.
        parts: where the folder's maker has split it, the folders of its parts, such as 'train' and 'val'.
    """

    classes: tuple[str, ...]
    photos: tuple[str, ...]
    unused: dict[str, str]
    parts: tuple[str, ...] = ()


def class_of(photo: str) -> str:
    """The class of a photo of a `Listing`: the name of the folder that it lies in."""
    return photo.split("/")[-2]


def part_of(photo: str) -> str | None:
    """`TRAINING`, `VALIDATION` or `TEST`; None where the photo's folder has no parts."""
    return PARTS[photo.split("/")[0].lower()] if photo.count("/") == 2 else None


def list_files(root: Path) -> Listing:
    """Sort a folder's files into photos and unused files.

    Photos lie directly in a class folder, and class folders in ``root``, or in its parts: in ``train`` and, beside
    it, ``val`` (``valid``, ``validation``) or ``test``. Folders inside a class folder are left out, not searched.

    Raises:
        UserError: ``root`` is missing, empty, not a folder or unreadable, a name in it is not text, or one of its
            parts has classes that ``train`` lacks.
    """
    photos: list[str] = []
    unused: dict[str, str] = {}
    try:
        parts = _find_parts(root)
        if parts:
            others = [entry for entry in root.iterdir() if entry.name not in parts]
            unused |= {each.name: HIDDEN if is_hidden(each) else f"beside {_folders(parts)}" for each in others}
        classes = {part: _sort_files(root, part, photos, unused) for part in parts or ("",)}
    except OSError as error:
        raise UserError(
            f"The photos' folder {root} can't be read ({one_line(error)}). A data source is 'flowers', "
            "'synthetic' or a folder of class folders; FLOWERLIB_DATA, where set, is the folder of "
            "'flowers'."
        ) from error
    if not (any(classes.values()) or unused):
        raise UserError(f"The photos' folder {root} is empty. Put a folder of photos into it for each class.")
    _refuse_other_classes(root, classes)
    names = set().union(*classes.values())
    if odd := [name for name in (root.name, *names, *photos) if not is_printable(name)]:
        raise UserError(
            f"In {root} rename {one_line(', '.join(map(ascii, odd)))}: a name that has control characters, or is not "
            "in UTF-8, can't be written to a run's tables."
        )
    return Listing(tuple(sorted(names)), tuple(sorted(photos)), dict(sorted(unused.items())), parts)


def describe_parts(listing: Listing) -> str:
    """What a folder's parts are taken for, in a sentence for the terminal."""
    if any(PARTS[part.lower()] == VALIDATION for part in listing.parts):
        return f"{_folders(listing.parts)}: this split is kept, unless split or folds asks for another."
    return (
        f"{_folders(listing.parts)}: only what is in train/ is split; photos in class folders in test/ are set aside."
    )


def _folders(names: tuple[str, ...]) -> str:
    """``test/, train/ and val/``."""
    *others, last = (f"{name}/" for name in names)
    return f"{', '.join(others)} and {last}"


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is hidden, or is one of those that a system adds."""
    return path.name.startswith(".") or path.name.lower() in SYSTEM_NAMES


def suggest_folder(root: Path, listing: Listing) -> str:
    """Ask for the folder one level up or down, where that is a folder of class folders: `` Did you mean …?``."""
    for folder in [root / name for name in listing.classes] or [root.parent]:
        if _holds_class_folders(folder):
            return f" Did you mean {folder}?"
    return ""


def _find_parts(root: Path) -> tuple[str, ...]:
    parts = sorted(entry.name for entry in root.iterdir() if entry.name.lower() in PARTS and entry.is_dir())
    training = [part for part in parts if PARTS[part.lower()] == TRAINING]
    split = len(parts) > len(training) and any(_holds_class_folders(root / part) for part in training)
    return tuple(parts) if split else ()  # else they may be classes: trains and valleys


def _sort_files(root: Path, part: str, photos: list[str], unused: dict[str, str]) -> set[str]:
    """Add the files of a part to ``photos`` and ``unused``; return the names of its class folders."""
    classes = set()
    for entry in (root / part).iterdir():
        if is_hidden(entry):
            unused[entry.relative_to(root).as_posix()] = HIDDEN
        elif not entry.is_dir():
            unused[entry.relative_to(root).as_posix()] = "not in a class folder"
        else:
            classes.add(entry.name)
            for file in entry.iterdir():
                path = file.relative_to(root).as_posix()
                if reason := why_unused(file):
                    unused[path] = reason
                else:
                    photos.append(path)
    return classes


def _refuse_other_classes(root: Path, classes: dict[str, set[str]]) -> None:
    known = set().union(*(names for part, names in classes.items() if PARTS.get(part.lower()) in (None, TRAINING)))
    for part, names in classes.items():
        if others := sorted(names - known):
            raise UserError(
                f"In {root} {part}/ has class folders that train/ lacks: {', '.join(others)}. Rename or remove them: "
                "a network knows the classes that it was trained on."
            )


def why_unused(file: Path) -> str | None:
    """Why a file isn't taken for a photo, in a short phrase; None if it is."""
    if is_hidden(file):
        return HIDDEN
    if file.is_dir():
        return "a folder within a class folder"
    if not file.is_file() and file.exists():
        return "a pipe or a device, not a file"  # reading it might never end
    if file.suffix.lower() not in SUFFIXES and not looks_like_a_photo(file):
        return f"not a photo that is read here ({file.suffix or 'no suffix'})"
    return None


def _holds_class_folders(folder: Path) -> bool:
    try:
        holding = (
            any(file.suffix.lower() in SUFFIXES for file in entry.iterdir())
            for entry in folder.iterdir()
            if entry.is_dir() and not is_hidden(entry)
        )
        return sum(holding) > 1
    except OSError:  # a suggestion is not worth an error of its own
        return False
