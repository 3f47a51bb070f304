import hashlib
import io
import socket
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from flowerlib.data import download
from flowerlib.data.download import ManifestRow, fetch_flowers
from flowerlib.errors import UserError

ETAG = '"v1"'


class Server:
    """Files by path; ``cuts`` are the bytes after which the next answers break off; ``asked`` logs requests."""

    def __init__(self):
        self.files, self.redirects, self.cuts, self.asked, self.etag = {}, {}, [], [], ETAG
        self.ranges = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, request):
        if request.path in self.redirects:
            request.send_response(302)
            request.send_header("Location", self.redirects[request.path])
            request.end_headers()
            return
        if request.path not in self.files:
            request.send_error(404)
            return
        body, start = self.files[request.path], 0
        asked = request.headers.get("Range")
        if asked and self.ranges and request.headers.get("If-Range") == self.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        request.send_response((206 if start < len(body) else 416) if start else 200)
        request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        sent = body[start:][: self.cuts.pop(0) if self.cuts else None]
        self.asked.append((request.path, asked, len(sent)))
        request.wfile.write(sent)

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def photos():
    """Six photos by path, one of them under two labels; about 45 kB each."""
    random = np.random.default_rng(0)
    photos = {}
    for path in ("daisy/1.jpg", "daisy/2.jpg", "rose/3.jpg", "rose/4.jpg", "tulip/5.jpg"):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (160, 160, 3), np.uint8)).save(file, "jpeg", quality=95)
        photos[path] = file.getvalue()
    return photos | {"tulip/4.jpg": photos["rose/4.jpg"]}


@pytest.fixture(scope="module")
def manifest(photos):
    return [ManifestRow(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in photos.items()]


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def tree(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def target(tmp_path):
    """Inside a folder of its own, so that a test can see everything that was written around it."""
    return tmp_path / "data" / "flowers"


def fetch_from(server, target, manifest, *paths):
    fetch_flowers(target, [server.url + path for path in paths], manifest)


def assert_complete(target, photos):
    assert tree(target) == photos
    assert list(target.parent.iterdir()) == [target]  # nothing else stays behind


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archive_with_extra_files_and_other_names(server, target, photos, manifest, pack):
    members = {f"flower_photos/{path.replace('/', 's/x')}": data for path, data in photos.items()}
    members |= {"flower_photos/LICENSE.txt": b"text", "flower_photos/roses/more.jpg": b"another photo"}
    server.files["/a"] = pack(members)
    fetch_from(server, target, manifest, "/a")
    assert_complete(target, photos)


def test_photo_under_two_labels_needs_to_arrive_once(server, target, photos, manifest):
    server.files["/a"] = zipped({path: data for path, data in photos.items() if path != "tulip/4.jpg"})
    fetch_from(server, target, manifest, "/a")
    assert_complete(target, photos)


def test_interrupted_transfer_continues_with_the_rest(server, target, photos, manifest):
    archive = server.files["/a"] = zipped(photos)
    server.cuts = [150_000]
    fetch_from(server, target, manifest, "/a")
    assert_complete(target, photos)
    (_, first, _), (_, second, rest) = server.asked
    assert first is None
    start = int(second.removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 150_000
    assert rest == len(archive) - start


def test_interrupted_transfer_continues_in_the_next_call(server, target, photos, manifest):
    archive = server.files["/a"] = zipped(photos)
    server.cuts = [150_000, 0]
    with pytest.raises(UserError, match=r"6 of the 6 photos.* interrupted the transfer.*continues from there"):
        fetch_from(server, target, manifest, "/a")
    assert not target.exists()
    fetch_from(server, target, manifest, "/a")
    assert_complete(target, photos)
    _, asked, rest = server.asked[-1]
    assert asked is not None
    assert 0 < rest < len(archive) - 60_000


def test_a_transfer_that_was_complete_is_used(server, target, photos, manifest):
    archive = server.files["/a"] = zipped(photos)
    server.cuts = [150_000, 0]
    with pytest.raises(UserError):
        fetch_from(server, target, manifest, "/a")
    (part,) = (path for path in target.parent.rglob("*.part") if path.is_file())
    part.write_bytes(archive)  # as if the process had been killed before it was moved
    fetch_from(server, target, manifest, "/a")
    assert_complete(target, photos)
    assert server.asked[-1] == ("/a", f"bytes={len(archive)}-", 0)


def test_changed_file_on_the_server_starts_anew(server, target, photos, manifest):
    server.files["/a"] = bytes(300_000)
    server.cuts = [150_000, 0]
    with pytest.raises(UserError):
        fetch_from(server, target, manifest, "/a")
    server.files["/a"], server.etag = tarred(photos), '"v2"'
    fetch_from(server, target, manifest, "/a")
    assert_complete(target, photos)


def test_server_without_ranges_starts_anew(server, target, photos, manifest):
    archive = server.files["/a"] = tarred(photos)
    server.cuts, server.ranges = [150_000], False
    fetch_from(server, target, manifest, "/a")
    assert_complete(target, photos)
    assert server.asked[-1][2] == len(archive)


def test_altered_photo_is_lacking_and_the_next_source_fills_in(server, target, photos, manifest, capsys):
    altered = photos["daisy/1.jpg"][:-1] + b"!"
    server.files["/a"] = zipped(photos | {"daisy/1.jpg": altered})
    server.files["/b"] = tarred({"x/y/1.jpg": photos["daisy/1.jpg"]})
    fetch_from(server, target, manifest, "/a", "/b")
    assert_complete(target, photos)
    assert "lacks 1 of 6 photos" in capsys.readouterr().out


def test_photos_that_no_source_has_are_counted_and_the_others_kept(server, target, photos, manifest):
    server.files["/a"] = zipped({path: photos[path] for path in ("daisy/1.jpg", "rose/3.jpg")})
    with pytest.raises(UserError) as error:
        fetch_from(server, target, manifest, "/a", "/gone")
    for part in ("4 of the 6 photos", "lacks 4 of 6", "answered 404", "FLOWERLIB_DATA", "--data synthetic"):
        assert part in str(error.value)
    assert not target.exists()
    server.files["/b"] = zipped({path: photos[path] for path in ("daisy/2.jpg", "rose/4.jpg", "tulip/5.jpg")})
    fetch_from(server, target, manifest, "/b")
    assert_complete(target, photos)


def test_kept_photo_that_was_damaged_meanwhile_is_fetched_again(server, target, photos, manifest):
    server.files["/a"] = zipped({"daisy/1.jpg": photos["daisy/1.jpg"]})
    with pytest.raises(UserError):
        fetch_from(server, target, manifest, "/a")
    (kept,) = target.parent.rglob("1.jpg")
    kept.write_bytes(b"half")
    server.files["/b"] = zipped({path: data for path, data in photos.items() if path != "daisy/1.jpg"})
    with pytest.raises(UserError, match="1 of the 6 photos"):
        fetch_from(server, target, manifest, "/b")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_member_that_points_outside_is_never_written_there(server, target, photos, manifest, pack):
    outside = target.parent.parent / "absolute.jpg"
    members = {"../../escaped.jpg": photos["daisy/1.jpg"], str(outside): photos["daisy/2.jpg"]}
    server.files["/a"] = pack(members | {path: photos[path] for path in photos if path.startswith(("r", "t"))})
    fetch_from(server, target, manifest, "/a")
    assert_complete(target, photos)
    assert list(target.parent.parent.iterdir()) == [target.parent]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archive_bomb_is_refused(server, target, photos, manifest, pack, monkeypatch):
    monkeypatch.setattr(download, "MAX_ARCHIVE", 1 << 20)
    server.files["/a"] = pack({"bomb": bytes(1 << 21)} | photos)
    with pytest.raises(UserError, match="unpacks to more than 1,048,576 bytes"):
        fetch_from(server, target, manifest, "/a")


def test_endless_transfer_is_refused(server, target, manifest, monkeypatch):
    monkeypatch.setattr(download, "MAX_ARCHIVE", 1 << 20)
    server.files["/a"] = bytes(1 << 21)
    with pytest.raises(UserError, match="sends more than 1,048,576 bytes"):
        fetch_from(server, target, manifest, "/a")


@pytest.mark.parametrize("body", [b"", b"<html>Sorry!</html>", b"\x1f\x8b\x08\x00 no gzip at all"])
def test_what_is_not_an_archive_is_reported_and_not_kept(server, target, photos, manifest, body):
    server.files["/a"] = body
    with pytest.raises(UserError, match=r"not a zip or tar.gz archive"):
        fetch_from(server, target, manifest, "/a")
    server.files["/a"] = zipped(photos)
    fetch_from(server, target, manifest, "/a")
    assert_complete(target, photos)


def test_truncated_archive_gives_what_it_has(server, target, photos, manifest):
    server.files["/a"] = tarred(photos)[:150_000]
    server.files["/b"] = zipped(photos)
    fetch_from(server, target, manifest, "/a", "/b")
    assert_complete(target, photos)


def test_single_photos_as_the_last_resort(server, target, photos, manifest):
    server.files |= {f"/main/{path}": data for path, data in photos.items()}
    with pytest.raises(UserError, match="answered 404"):
        fetch_from(server, target, manifest, "/gone/{path}")
    fetch_from(server, target, manifest, "/gone/{path}", "/main/{path}")
    assert_complete(target, photos)


@pytest.mark.parametrize("length", ["", "some"])
def test_a_length_that_is_not_a_number_is_unknown(length):
    assert download._transfer_bar(SimpleNamespace(headers={"Content-Length": length}), 7).total is None


def test_server_gone(target, manifest, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a"
        with pytest.raises(UserError, match="can't be reached"):
            fetch_flowers(target, [url], manifest)


def test_redirect_to_plain_http_is_refused(server, target, manifest):
    server.redirects["/a"] = "http://flowers.invalid/a.zip"
    with pytest.raises(UserError, match=r"http://flowers.invalid, which is not https"):
        fetch_from(server, target, manifest, "/a")


def test_redirect_is_followed(server, target, photos, manifest):
    server.redirects["/a"] = "/b"
    server.files["/b"] = zipped(photos)
    fetch_from(server, target, manifest, "/a")
    assert_complete(target, photos)


def test_unwritable_place_is_reported(server, tmp_path, manifest):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Nothing can be written"):
        fetch_from(server, tmp_path / "file" / "flowers", manifest, "/a")


def test_target_in_the_way_loses_nothing(server, target, photos, manifest):
    server.files["/a"] = zipped(photos)
    target.mkdir(parents=True)
    (target / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="could not be written"):
        fetch_from(server, target, manifest, "/a")
    assert tree(target) == {"mine.jpg": b"mine"}
