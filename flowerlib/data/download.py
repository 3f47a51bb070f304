"""The paper's photos from the public places that hold them, each photo judged by the manifest.

No archive's own hash is known, and none is needed: whatever arrives, a photo is kept only if its SHA-256
stands in the manifest, and it is written under the manifest's path, never under one that came from outside.

requests carries the transfers. pooch, which fetches whole files of a known hash, has neither resume nor a way
to judge what an archive holds.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import shutil
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from flowerlib.errors import UserError, brief
from flowerlib.files import make_folder
from flowerlib.progress import progress_bar

# Tried in turn: archives, then (with {path}) a repository's files one by one, whose branch is not known.
SOURCES = (
    "https://www.dropbox.com/s/snom6v4zfky0flx/flower_dataset.zip?dl=1",
    "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
    "https://raw.githubusercontent.com/simple-boy/AI-/main/flower_dataset/{path}",
    "https://raw.githubusercontent.com/simple-boy/AI-/master/flower_dataset/{path}",
)
MANIFEST = Path(__file__).with_name("manifest.csv")
PHOTOS = 2848  # rows of the manifest
LOOPBACK = ("127.0.0.1", "localhost")
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
CHUNK = 1 << 16  # bytes; what a broken transfer may lose
MAX_BYTES = 2 << 30  # of an archive, packed or unpacked: nine times TensorFlow's, against archive bombs
MAX_AT_ONCE = 1 << 20  # bytes of a tar: a photo (the largest has 0.3 MB), or what comes before one


@dataclass(frozen=True)
class ManifestRow:
    """One of the paper's photos: its path ``class/file``, its size in bytes, its SHA-256 in hex.

    Raises:
        ValueError: it is none, or its path might lead out of a folder that it is put into.
    """

    path: str
    bytes: int
    sha256: str

    def __post_init__(self):
        name = r"(?!\.)[^/\x00-\x1f]+"
        if not re.fullmatch(f"{name}/{name} [0-9a-f]{{64}}", f"{self.path} {self.sha256}"):
            raise ValueError(f"no row of class, file, bytes and sha256: {self}")


def read_manifest(file: Path = MANIFEST) -> tuple[ManifestRow, ...]:
    """Read the paper's 2,848 photos: rows of class, file, bytes, sha256.

    Raises:
        UserError: it isn't that file any more.
    """
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = tuple(
                ManifestRow(f"{row['class']}/{row['file']}", int(row["bytes"]), row["sha256"])
                for row in csv.DictReader(lines)
            )
        if not len(rows) == len({row.path for row in rows}) == PHOTOS:
            raise ValueError(f"it has {len(rows):,} rows, not {PHOTOS:,}, or a photo twice")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"The list of the paper's photos, {file}, can't be used ({brief(error)}). It comes with flowerlib: put "
            "back the file as it was."
        ) from error
    return rows


def fetch_flowers(
    target: Path, sources: Iterable[str] = SOURCES, manifest: Iterable[ManifestRow] | None = None
) -> None:
    """Bring the paper's photos to ``target``/<class>/<file>, in one move: all of them or nothing.

    What has arrived so far waits in the hidden folder ``.<target>.part`` beside the target, and the next call
    goes on from there: photos already verified, and the beginning of a transfer that broke off.

    Args:
        target: must not be there yet.
        sources: addresses tried in turn, until no photo is missing: a zip or tar.gz archive each, or with
            ``{path}`` in it, the place of single photos.
        manifest: the photos wanted; the paper's if not given.

    Raises:
        UserError: photos are missing after all sources, or nothing can be written.
    """
    staging = make_folder(target.with_name(f".{target.name}.part"))
    attempts = []
    try:
        gathered = Gathering(staging / "photos", read_manifest() if manifest is None else manifest)
        for source in sources:
            if gathered.missing:
                print(f"Fetching {len(gathered.missing):,} photos from {source}")
                attempts.append(f"{source} {_gather_from(source, gathered, staging)}")
        if gathered.missing:
            raise UserError(_what_is_missing(gathered, attempts, staging))
        gathered.folder.replace(target)
        shutil.rmtree(staging)
    except OSError as error:
        raise UserError(
            f"The photos could not be written to {target} ({error}). Free some space or change its "
            "permissions: the next try goes on from what has arrived."
        ) from error


class Gathering:
    """The photos of a manifest that have arrived in a folder, and the rows that are still ``missing``."""

    def __init__(self, folder: Path, manifest: Iterable[ManifestRow]):
        self.folder = folder
        self.rows = defaultdict(list)  # the same bytes can stand under two rows
        for row in manifest:
            self.rows[row.sha256].append(row)
        self.sizes = {row.bytes for rows in self.rows.values() for row in rows}
        self.missing = {row for rows in self.rows.values() for row in rows if not self._holds(row)}

    def keep(self, data: bytes) -> None:
        """Write ``data`` wherever the manifest has these bytes; drop them if it has them nowhere."""
        for row in self.rows.get(hashlib.sha256(data).hexdigest(), ()):
            photo = self.folder / row.path
            photo.parent.mkdir(parents=True, exist_ok=True)
            photo.write_bytes(data)
            self.missing.discard(row)

    def _holds(self, row: ManifestRow) -> bool:
        photo = self.folder / row.path
        return photo.is_file() and hashlib.sha256(photo.read_bytes()).hexdigest() == row.sha256


class _Refused(Exception):
    """A source that breaks our rules; the message is the predicate of a sentence about it."""


class _Session(requests.Session):
    """Speaks https only, after every redirect too; plain http within this machine."""

    def send(self, request: requests.PreparedRequest, **options) -> requests.Response:
        """Send one hop of a request; `_Refused` if it would leave this machine unencrypted."""
        address = urlsplit(request.url)
        if address.scheme != "https" and address.hostname not in LOOPBACK:
            raise _Refused(f"leads to {address.scheme}://{address.hostname}, which is not https")
        return super().send(request, **options)


def _gather_from(source: str, gathered: Gathering, staging: Path) -> str:
    """Take what is missing from one source; return what came of it, as the predicate of a sentence."""
    wanted = len(gathered.missing)
    try:
        if "{path}" in source:
            _fetch_singly(source, gathered)
        else:
            archive = staging / PurePosixPath(urlsplit(source).path).name
            _download(source, archive)
            _unpack(archive, gathered)
    except requests.RequestException as error:
        outcome = _in_words(error)
    except _Refused as error:
        outcome = str(error)
    else:
        outcome = f"lacks {len(gathered.missing):,} of {wanted:,} photos"
    print(f"  The source {outcome}." if gathered.missing else "  All photos have arrived.")
    return outcome


def _download(url: str, archive: Path) -> None:
    """Bring ``url`` to ``archive``; a broken transfer is taken up again as long as each try brings more."""
    part = archive.with_name(f"{archive.name}.part")
    while not archive.exists():
        before = _size(part)
        try:
            _transfer(url, part)
        except requests.RequestException:
            if _size(part) <= before:
                raise
        else:
            part.replace(archive)


def _transfer(url: str, part: Path) -> None:
    """Write ``url`` to ``part``, or only what ``part`` lacks if the server still has the same file."""
    stamp = part.with_suffix(".stamp")  # identifies the server's file that the part belongs to
    known = stamp.read_text() if stamp.exists() else ""
    headers = {"Accept-Encoding": "identity"}
    if known and _size(part):
        headers |= {"Range": f"bytes={_size(part)}-", "If-Range": known}
    with _Session() as session, session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.range_not_satisfiable:
            part.unlink()  # nothing follows what we have, so it isn't a beginning: the next try starts anew
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            part.write_bytes(b"")
            stamp.write_text(_validator(response))
        with part.open("ab") as file, _bar(response, file.tell()) as bar:
            for chunk in response.iter_content(CHUNK):
                bar.update(file.write(chunk))
                if file.tell() > MAX_BYTES:
                    raise _Refused(f"sends more than {MAX_BYTES:,} bytes")


def _validator(response: requests.Response) -> str:
    """Return what If-Range takes: a strong ETag, else the date; '' if the server gives neither."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _bar(response: requests.Response, start: int) -> tqdm:
    length = re.fullmatch("[0-9]{1,18}", response.headers.get("Content-Length", ""))
    total = start + int(length[0]) if length else None
    return progress_bar(total=total, initial=start, unit="B", unit_scale=True)


def _unpack(archive: Path, gathered: Gathering) -> None:
    """Keep the wanted photos among an archive's members, then remove it: it has given what it has."""
    outside = 0
    try:
        for name, data in _members(archive, gathered.sizes):
            outside += name.startswith("/") or ".." in PurePosixPath(name).parts
            gathered.keep(data)
    finally:
        archive.unlink()
        if outside:
            print(f"  {outside} members of {archive.name} point outside it. No archive's paths are ever used.")


def _members(archive: Path, sizes: set[int]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of an archive's members, content b'' for a size that isn't wanted."""
    unpacked = 0
    try:
        for name, size, read in _zipped(archive) if zipfile.is_zipfile(archive) else _tarred(archive):
            unpacked += size
            if unpacked > MAX_BYTES:
                raise _Refused(f"unpacks to more than {MAX_BYTES:,} bytes")
            yield name, read(size) if size in sizes else b""
    except _Refused:
        raise
    except Exception as error:  # zipfile and tarfile raise nearly anything on a damaged file
        raise _Refused(f"is damaged, or no zip or tar.gz archive ({brief(error)})") from error


def _zipped(archive: Path) -> Iterator[tuple]:
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            if not member.is_dir():
                with members.open(member) as content:
                    yield member.filename, member.file_size, content.read


def _tarred(archive: Path) -> Iterator[tuple]:
    with _Unzipped(archive) as tar, tarfile.open(fileobj=tar, mode="r:") as members:
        for member in members:
            if member.size < 0:
                raise ValueError("a member of negative size")  # the next one would be the same, for ever
            # of a link, a device or a pipe nothing is read; but to pass over what it claims to hold takes its time
            yield member.name, member.size, members.extractfile(member).read if member.isfile() else _nothing


def _nothing(size: int) -> bytes:
    return b""


class _Unzipped(gzip.GzipFile):
    """A tar that is read in small parts: tarfile would take a name as long as its header says into memory."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_AT_ONCE:
            raise ValueError(f"a part of {size:,} bytes")
        return super().read(size)


def _fetch_singly(template: str, gathered: Gathering) -> None:
    """Take the missing photos one by one; the first that the source hasn't got, or has otherwise, ends it."""
    rows = sorted(gathered.missing, key=lambda row: row.path)
    with _Session() as session:
        for row in progress_bar(rows, unit="photo"):
            url = template.format(path=row.path)
            with session.get(url, stream=True, timeout=TIMEOUT) as response:
                response.raise_for_status()
                chunks = islice(response.iter_content(CHUNK), row.bytes // CHUNK + 2)  # no more than the photo's size
                gathered.keep(b"".join(chunks))
            if row in gathered.missing:
                raise _Refused(f"sends other bytes than the paper's photo {row.path}")


def _in_words(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError):
        return f"answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "has no valid certificate"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "broke off"
    if isinstance(error, requests.ConnectionError):
        return "can't be reached"
    return f"failed ({error})"


def _what_is_missing(gathered: Gathering, attempts: list[str], staging: Path) -> str:
    total = sum(map(len, gathered.rows.values()))
    return (
        f"{len(gathered.missing):,} of the {total:,} photos could not be fetched: {'; '.join(attempts)}. "
        f"What has arrived is kept in {staging}, and the next try goes on from there. Without a connection: "
        "set FLOWERLIB_DATA to a folder that holds the photos, or take --data FOLDER for photos of your own, "
        "or --data synthetic for generated pictures."
    )


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
