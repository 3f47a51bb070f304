"""Download the paper's photos from public sources, and check each one against the manifest.

The hashes of the archives are not known, and none is needed: a photo is kept only if its SHA-256 is in the manifest,
and it is written to the manifest's path, never to one that an archive or a server gives.

The transfers use requests. pooch, which fetches whole files with known hashes, can neither resume a transfer nor
check what is in an archive.
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from flowerlib.errors import UserError, one_line
from flowerlib.files import make_folder
from flowerlib.progress import progress_bar

# Tried in turn: archives, then (with {path}) single files in a repository, whose branch could be either.
SOURCES = (
    "https://www.dropbox.com/s/snom6v4zfky0flx/flower_dataset.zip?dl=1",
    "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
    "https://raw.githubusercontent.com/simple-boy/AI-/main/flower_dataset/{path}",
    "https://raw.githubusercontent.com/simple-boy/AI-/master/flower_dataset/{path}",
)
MANIFEST = Path(__file__).with_name("manifest.csv")
LOOPBACK = ("127.0.0.1", "localhost")
TIMEOUT = (10, 60)  # seconds to connect; seconds without a byte
CHUNK = 1 << 16  # bytes: the most that an interrupted transfer loses
MAX_ARCHIVE = 2 << 30  # of an archive, packed or unpacked, against archive bombs: TensorFlow's has a ninth of it
MAX_READ = 1 << 20  # bytes of a tar that are read at once: a photo (the largest has 0.3 MB) or a header


@dataclass(frozen=True)
class ManifestRow:
    """One of the paper's photos: its path ``class/file``, its size in bytes, its SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


def read_manifest() -> tuple[ManifestRow, ...]:
    """Read the list of the paper's 2,848 photos."""
    with MANIFEST.open(newline="", encoding="utf-8") as lines:
        return tuple(
            ManifestRow(f"{row['class']}/{row['file']}", int(row["bytes"]), row["sha256"])
            for row in csv.DictReader(lines)
        )


def fetch_flowers(
    target: Path, sources: Iterable[str] = SOURCES, manifest: Iterable[ManifestRow] | None = None
) -> None:
    """Download the paper's photos to ``target``/<class>/<file>: all of them, or nothing appears there.

    Until the last photo has arrived, everything is in the hidden folder ``.<target>.part`` beside the target: checked
    photos, and the beginning of an interrupted transfer. The next call continues from there.

    Args:
        target: must not exist yet.
        sources: addresses, tried in turn until no photo is missing. Each is a zip or tar.gz archive, or, with
            ``{path}`` in it, the address of single photos.
        manifest: the photos wanted; the paper's if not given.

    Raises:
        UserError: photos are missing after all sources were tried, or nothing can be written.
    """
    staging = make_folder(target.with_name(f".{target.name}.part"))
    attempts = []
    try:
        download = PartialDownload(staging / "photos", read_manifest() if manifest is None else manifest)
        for source in sources:
            if download.missing:
                print(f"Downloading {len(download.missing):,} photos from {source}")
                attempts.append(f"{source} {_try_source(source, download, staging)}")
        if download.missing:
            raise UserError(_describe_missing(download, attempts, staging))
        download.folder.replace(target)
        shutil.rmtree(staging)
    except OSError as error:
        raise UserError(
            f"The photos could not be written to {target} ({error}). Free some space or change its "
            "permissions, then run the same command again: it continues from what has arrived."
        ) from error


class PartialDownload:
    """The photos of a manifest that have arrived in a folder, and the rows that are still ``missing``."""

    def __init__(self, folder: Path, manifest: Iterable[ManifestRow]):
        self.folder = folder
        self.rows = defaultdict(list)  # by hash: two paths can have the same bytes
        for row in manifest:
            self.rows[row.sha256].append(row)
        self.sizes = {row.bytes for rows in self.rows.values() for row in rows}
        self.missing = {row for rows in self.rows.values() for row in rows if not self._holds(row)}

    def keep(self, data: bytes) -> None:
        """Write ``data`` to every path for which the manifest lists these bytes; to none if it doesn't list them."""
        for row in self.rows.get(hashlib.sha256(data).hexdigest(), ()):
            photo = self.folder / row.path
            photo.parent.mkdir(parents=True, exist_ok=True)
            photo.write_bytes(data)
            self.missing.discard(row)

    def _holds(self, row: ManifestRow) -> bool:
        photo = self.folder / row.path
        return photo.is_file() and hashlib.sha256(photo.read_bytes()).hexdigest() == row.sha256


class _SourceError(Exception):
    """What is wrong with a source: the message continues a sentence whose subject is the source."""


class _SecureSession(requests.Session):
    """Uses https only, even after redirects; plain http is allowed within this machine."""

    def send(self, request: requests.PreparedRequest, **options) -> requests.Response:
        """Send one request or redirect; `_SourceError` if it would leave this machine unencrypted."""
        address = urlsplit(request.url)
        if address.scheme != "https" and address.hostname not in LOOPBACK:
            raise _SourceError(f"leads to {address.scheme}://{address.hostname}, which is not https")
        return super().send(request, **options)


def _try_source(source: str, download: PartialDownload, staging: Path) -> str:
    """Take what is missing from one source; return the outcome, which continues a sentence about the source."""
    wanted = len(download.missing)
    try:
        if "{path}" in source:
            _download_photos(source, download)
        else:
            archive = staging / PurePosixPath(urlsplit(source).path).name
            _download_archive(source, archive)
            _unpack(archive, download)
    except requests.RequestException as error:
        outcome = _describe_error(error)
    except _SourceError as error:
        outcome = str(error)
    else:
        outcome = f"lacks {len(download.missing):,} of {wanted:,} photos"
    print(f"  The source {outcome}." if download.missing else "  All photos have arrived.")
    return outcome


def _download_archive(url: str, archive: Path) -> None:
    """Download ``url`` to ``archive``; resume an interrupted transfer as long as each try brings more."""
    part = archive.with_name(f"{archive.name}.part")
    while not archive.exists():
        before = _file_size(part)
        try:
            _transfer(url, part)
        except requests.RequestException:
            if _file_size(part) <= before:
                raise
        else:
            part.replace(archive)


def _transfer(url: str, part: Path) -> None:
    """Write ``url`` to ``part``, or only what ``part`` lacks if the server still has the same file."""
    stamp = part.with_suffix(".stamp")  # identifies the server's file that the part belongs to
    known = stamp.read_text() if stamp.exists() else ""
    headers = {"Accept-Encoding": "identity"}
    if known and _file_size(part):
        headers |= {"Range": f"bytes={_file_size(part)}-", "If-Range": known}
    with _SecureSession() as session, session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.range_not_satisfiable:
            return  # nothing is left to send: it was all here
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            part.write_bytes(b"")
            stamp.write_text(_validator(response))
        with part.open("ab") as file, _transfer_bar(response, file.tell()) as bar:
            for chunk in response.iter_content(CHUNK):
                bar.update(file.write(chunk))
                if file.tell() > MAX_ARCHIVE:
                    raise _SourceError(f"sends more than {MAX_ARCHIVE:,} bytes")


def _validator(response: requests.Response) -> str:
    """What the server identifies the file by, for If-Range: a strong ETag, else the date; '' if there is neither."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _transfer_bar(response: requests.Response, start: int) -> tqdm:
    length = re.fullmatch("[0-9]{1,18}", response.headers.get("Content-Length", ""))
    total = start + int(length[0]) if length else None
    return progress_bar(total=total, initial=start, unit="B", unit_scale=True)


def _unpack(archive: Path, download: PartialDownload) -> None:
    """Keep the wanted photos from an archive, then remove it: there is nothing else in it for us."""
    try:
        for data in _contents(archive, download.sizes):
            download.keep(data)
    finally:
        archive.unlink()


def _contents(archive: Path, sizes: set[int]) -> Iterator[bytes]:
    """Yield the contents of those members of an archive that have one of the sizes; their names don't matter."""
    unpacked = 0
    try:
        for size, read in _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive):
            unpacked += size
            if unpacked > MAX_ARCHIVE:
                raise _SourceError(f"unpacks to more than {MAX_ARCHIVE:,} bytes")
            if read and size in sizes:
                yield read(size)
    except _SourceError:
        raise
    except Exception as error:  # zipfile and tarfile raise nearly anything on a damaged file
        raise _SourceError(f"is damaged, or not a zip or tar.gz archive ({one_line(error)})") from error


def _zip_members(archive: Path) -> Iterator[tuple[int, Callable[[int], bytes]]]:
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            if not member.is_dir():
                with members.open(member) as content:
                    yield member.file_size, content.read


def _tar_members(archive: Path) -> Iterator[tuple[int, Callable[[int], bytes] | None]]:
    with _CautiousGzip(archive) as tar, tarfile.open(fileobj=tar, mode="r:") as members:
        for member in members:
            if member.size < 0:
                raise ValueError("a member of negative size")  # tarfile would go back to it for ever
            # links, devices and pipes are not read; what they claim to hold counts, for skipping it takes its time
            yield member.size, members.extractfile(member).read if member.isfile() else None


class _CautiousGzip(gzip.GzipFile):
    """Refuses long reads: tarfile would read a member's name into memory, however long the header says it is."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise ValueError(f"a header of {size:,} bytes")
        return super().read(size)


def _download_photos(template: str, download: PartialDownload) -> None:
    """Download the missing photos one by one, until one is missing from the source, or differs there."""
    rows = sorted(download.missing, key=lambda row: row.path)
    with _SecureSession() as session:
        for row in progress_bar(rows, unit="photo"):
            url = template.format(path=row.path)
            with session.get(url, stream=True, timeout=TIMEOUT) as response:
                response.raise_for_status()
                chunks = islice(response.iter_content(CHUNK), row.bytes // CHUNK + 2)  # hardly more than the photo
                download.keep(b"".join(chunks))
            if row in download.missing:
                raise _SourceError(f"sends other bytes than the paper's photo {row.path}")


def _describe_error(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError):
        return f"answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "has no valid certificate"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "interrupted the transfer"
    if isinstance(error, requests.ConnectionError):
        return "can't be reached"
    return f"failed ({error})"


def _describe_missing(download: PartialDownload, attempts: list[str], staging: Path) -> str:
    total = sum(map(len, download.rows.values()))
    return (
        f"{len(download.missing):,} of the {total:,} photos could not be downloaded: {'; '.join(attempts)}. "
        f"What has arrived is kept in {staging}, and the next try continues from there. Without a connection: "
        "set FLOWERLIB_DATA to a folder that holds the photos, or use --data FOLDER for your own photos, "
        "or --data synthetic for synthetic images."
    )


def _file_size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
