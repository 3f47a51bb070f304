"""Damaged and hostile files: a reader gives a result or refuses in one paragraph, and runs nothing of what it reads.

`make fuzz` tries a hundred times as many cases.
"""

import copy
import csv
import gzip
import hashlib
import io
import json
import os
import pickle
import stat
import tarfile
import tracemalloc
import warnings
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from flowerlib import descriptions, fetch, report, sections, sessions
from flowerlib.cache import find_cache, new_cache
from flowerlib.checkpoint import read_last, write_last
from flowerlib.dataset import PhotoSet, inspect, split
from flowerlib.document import Prose
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment, parse_override, read_experiments
from flowerlib.fetch import Gathering, ManifestRow, read_manifest
from flowerlib.metrics import (
    EpochMetrics,
    confusion_matrix,
    read_run,
    write_info,
    write_metrics,
    write_predictions,
)
from flowerlib.model import build_model, load_weights
from flowerlib.provenance import describe_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def outcome(reader, *arguments):
    """What a reader makes of a file, or None if it refuses it in one paragraph; anything else fails the test."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            result = reader(*arguments)
        except (UserError, fetch._Refused) as error:
            result, text = None, str(error)
        else:
            text = "fine"
    assert len(text.splitlines()) == 1
    assert len(text) < 20_000
    assert not [str(each.message) for each in said if "/torch/" not in each.filename]
    return result


# what is done to files

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from([-1, 0, 10**40, 1e308, "", "\x07", "\n", "..", "/", "nan", "\ud800", "a" * 300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def damaged(draw, content):
    """Bytes of which a few stretches, mostly short ones, are overwritten, removed, inserted or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.integers(0, 4) | st.integers(0, len(content))))
        new = draw(st.binary(max_size=4) | st.just(2 * content[begin:end]))
        content = content[:begin] + new + content[end:]
    return content


@st.composite
def altered(draw, tree, odd=ODD):
    """A tree of mappings and lists of which a few parts are replaced, removed, renamed or doubled."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        if not (places := list(_places(tree))):
            return tree
        where, key = places[draw(st.integers(0, len(places) - 1))]
        old, how = where.pop(key), draw(st.sampled_from(("replace", "replace", "remove", "move")))
        if isinstance(where, list):
            where[key:key] = {"replace": [draw(odd)], "remove": [], "move": [old, copy.deepcopy(old)]}[how]
        elif how != "remove":
            where[key if how == "replace" else draw(st.text(max_size=5))] = draw(odd) if how == "replace" else old
    return tree


def _places(tree):
    """Every part of a tree, as the mapping or list that it is in, and its key there."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def _yaml(tree):
    return yaml.safe_dump(tree).encode()


def _json(tree):
    return json.dumps(tree).encode()


def _csv(table):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row if isinstance(row, list) else [row] for row in table)
    return text.getvalue().encode(errors="surrogatepass")


def _torch(tree):
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def _untorch(content):
    return torch.load(io.BytesIO(content), weights_only=True)


# settings

EXPERIMENTS = {"a": None, "b": {"batch_size": 64, "learning_rate": 0.01, "model": "resnet34"}, "c": {"data": "/x"}}
TOKENS = (
    *("a", "b", "epochs", "data", ":", ": ", " ", "\n", "\n  ", "- ", "? ", ", ", "{", "}", "[", "]", "'", '"', "|"),
    *("&x ", "*x", "<<", ">", "%", "@", "#", "~", "\0", "\t", "---\n", "...\n", "\\", "\u2028"),
    *("1", "-", "0x", "f" * 99, "9" * 5000, ":5" * 99, "1e", ".nan", "-.inf", "null", "2001-99-99", "=", "!x "),
    *(f"!!{tag} " for tag in ("int", "float", "bool", "null", "str", "timestamp", "binary", "set", "omap", "pairs")),
    "!!python/object/apply:os.getcwd []",
)
YAML = st.lists(st.sampled_from(TOKENS), max_size=30).map("".join)
LONG_NUMBER = "-0x" + "f" * 5000  # Python reads it and refuses to print it


@given(st.binary() | YAML.map(str.encode) | damaged(_yaml(EXPERIMENTS)) | altered(EXPERIMENTS).map(_yaml))
@example(b"a: {epochs: !!int ''}")
@example(b"a: {epochs: !!bool x}")
@example(b"a: {epochs: !!timestamp x}")
@example(b"a: {epochs: %s}" % LONG_NUMBER.encode())
@example(b'a: {"\\r": 1}')
def test_experiments_files(place, content):
    path = place / "experiments.yaml"
    path.write_bytes(content)
    for name, experiment in (outcome(read_experiments, path) or {}).items():
        assert (place / name).parent == place
        assert Experiment.from_settings(json.loads(json.dumps(experiment.settings()))) == experiment


VALUES = YAML | st.integers().map(str) | st.floats().map(str) | st.sampled_from(["true", "cpu", "[1, 2]", "1e-4"])


@given(st.text() | YAML | st.tuples(st.sampled_from(list(Experiment().settings())), VALUES).map("=".join))
@example("epochs=!!int ''")
@example(f"epochs={LONG_NUMBER}")
@example("a\nb")
def test_overrides(text):
    outcome(lambda: Experiment.from_settings(dict([parse_override(text)])))


@pytest.mark.parametrize("entry", ["[{}]", "{{<<: [{}]}}"], ids=["aliases", "merges"])
def test_aliases_of_aliases_are_refused_before_they_are_written_out(place, entry):
    lines = ["a0: &a0 {epochs: 1}"]
    lines += [f"a{level}: &a{level} {entry.format(', '.join(10 * [f'*a{level - 1}']))}" for level in range(1, 7)]
    path = place / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match="holds too much"):
        read_experiments(path)


def test_a_few_aliases_do(place):
    path = place / "aliases.yaml"
    path.write_text("a: &a {epochs: 3, seed: 1}\nb: {<<: *a, seed: 2}\n")
    assert read_experiments(path) == {"a": Experiment(epochs=3, seed=1), "b": Experiment(epochs=3, seed=2)}


# the list of the paper's photos

MANIFEST = [["class", "file", "bytes", "sha256"], *(["rose", f"{i}.jpg", str(i), f"{i:064x}"] for i in range(5))]


@pytest.fixture(scope="module")
def few_photos():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "PHOTOS", len(MANIFEST) - 1)
        yield


@given(st.binary() | damaged(_csv(MANIFEST)) | altered(MANIFEST).map(_csv))
@example(_csv([MANIFEST[0][::2], *MANIFEST[1:]]))
@example(_csv([*MANIFEST[:5], ["rose", "5.jpg"]]))
@example(_csv([*MANIFEST[:5], ["..", "5.jpg", "5", f"{5:064x}"]]))
@example(_csv([*MANIFEST[:5], ["", "5.jpg", "5", f"{5:064x}"]]))
@example(_csv([*MANIFEST[:5], ["\x80", "5.jpg", "5", f"{5:064x}"]]).replace(b"\xc2", b""))
@example(_csv(MANIFEST[:4]))
def test_manifests(place, few_photos, content):
    path = place / "manifest.csv"
    path.write_bytes(content)
    rows = outcome(read_manifest, path)
    assert rows is None or len(rows) == 5
    for row in rows or ():
        assert (place / row.path).resolve().parent.parent == place.resolve()


# a session's tables


@cache
def session():
    """The files of a finished session, as training writes them, by name."""
    paths = tuple(f"{name}/{index}.jpg" for name in ("aster", "broom") for index in range(6))
    photos = PhotoSet("own", Path(), ("aster", "broom"), paths, np.repeat([0, 1], 6), "f" * 64, None, {})
    experiment, weights = Experiment(epochs=3, weights="none"), load_weights("none", "resnet18")
    parts = split(photos, 0)
    with TemporaryDirectory() as folder:
        folder = Path(folder)
        write_info(folder, describe_run(experiment, photos, parts, weights, CPU, "float32") | {"finished": True})
        write_metrics(folder / "metrics.csv", [EpochMetrics(epoch, *[0.25] * 9) for epoch in range(3)])
        names, labels = [paths[index] for index in parts.validation], photos.labels[parts.validation]
        write_predictions(
            folder / "predictions.csv", names, labels, np.tile([0.25, 0.75], (len(names), 1)), photos.classes
        )
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def _spoilt(name):
    def files():
        content = session()[name]
        if name == "run.json":
            return damaged(content) | altered(json.loads(content)).map(_json)
        return damaged(content) | altered(list(csv.reader(io.StringIO(content.decode())))).map(_csv)

    return st.tuples(st.just(name), st.deferred(files))


def sessions_with(folder, name, content):
    """A folder of two sessions; in the second one file has another content."""
    for each in ("a", "b"):
        (folder / each).mkdir(parents=True, exist_ok=True)
        for file, good in session().items():
            (folder / each / file).write_bytes(content if (each, file) == ("b", name) else good)
    return folder


def all_that_is_said(folder):
    """What the report's text and tables take from the sessions of a folder."""
    sessions = report.load_sessions(report.find_sessions(folder))
    sections.summary_table(sessions), sections.duration_table(sessions)
    said = [descriptions.notice(sessions), descriptions.provenance(sessions)]
    for session in sessions:
        sections.epoch_table(session.metrics, sections.PAPER_METRICS, session.name, sections.plain(session.name))
        for run in session.runs:
            assert confusion_matrix(run.predictions).to_numpy().sum() == len(run.predictions)
        said += [
            descriptions.describe_changes(session, sessions[0]),
            *(describe(session) for describe in DESCRIPTIONS),
        ]
    return Prose(" ".join(said)).markdown.encode()


DESCRIPTIONS = (
    descriptions.describe_photos,
    descriptions.describe_augmentation,
    sections.describe_result,
    descriptions.describe_network,
    descriptions.describe_weights,
    descriptions.describe_task,
    descriptions.describe_start,
)


@given(_spoilt("run.json") | _spoilt("metrics.csv") | _spoilt("predictions.csv"))
def test_sessions(place, spoilt):
    folder = sessions_with(place / "sessions", *spoilt)
    outcome(read_run, folder / "b")
    outcome(all_that_is_said, folder)


@pytest.mark.parametrize(
    ("name", "good", "bad", "said"),
    [
        ("run.json", '"finished": true', '"finished": "yes"', "finished"),
        ("run.json", '"commit"', '"commitment"', "commit"),
        ("run.json", '"name": "own"', '"name": "\\u0007"', "dataset.name"),
        ("run.json", '"photos": 12', '"photos": "many"', "dataset.photos"),
        ("run.json", '"aster": 6', '"aster": null', "dataset.classes"),
        ("run.json", '"source": "none"', '"source": "moon"', "weights.source"),
        ("run.json", '"trained_on": null', '"trained_on": 3', "weights.trained_on"),
        ("run.json", '"earlier": []', '"earlier": [3]', "earlier"),
        ("run.json", '"flip": 0.1', '"flip": "often"', "flip must be a number"),
        ("run.json", '"flip": 0.1', '"flop": 0.1', "no setting 'flop'"),
        ("run.json", '"epochs": 3', '"epochs": 4', r"metrics\.csv .* 4 epochs"),
        ("metrics.csv", "\n1,0.25", "\n1,fast", "could not convert"),
        ("metrics.csv", "\n1,0.25", "\n1,nan", "metrics"),
        ("metrics.csv", "\n1,0.25", "\n1,1e300", "finite numbers"),
        ("metrics.csv", "\n1,", "\n0,", "each of 3 epochs"),
        ("metrics.csv", "\n1,", "\n9.3e18,", "each of 3 epochs"),
        ("metrics.csv", "train_loss", "loss", "its columns must be"),
        ("metrics.csv", "\n1,", "\n1,1,", "Expected 10 fields"),
        ("predictions.csv", "jpg,aster", "jpg,rose", "must have a label"),
        ("predictions.csv", "0.75\n", "7.5\n", "probabilities"),
        ("predictions.csv", "0.75\n", "\n", "could not convert"),
        ("predictions.csv", "aster,broom\n", "aster,rose\n", "its columns must be"),
    ],
)
def test_a_session_with_a_wrong_part_is_refused_by_the_part(tmp_path, name, good, bad, said):
    content = session()[name].decode()
    assert good in content
    folder = sessions_with(tmp_path, name, content.replace(good, bad, 1).encode())
    with pytest.raises(UserError, match=said):
        read_run(folder / "b")


@pytest.mark.parametrize("name", ["metrics.csv", "predictions.csv"])
def test_a_table_that_ends_too_early_is_refused(tmp_path, name):
    rows = session()[name].decode().splitlines(keepends=True)
    folder = sessions_with(tmp_path, name, "".join(rows[:-1]).encode())
    with pytest.raises(UserError, match=name):
        read_run(folder / "b")


def test_a_run_json_that_leads_nowhere_is_no_session(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/run.json").symlink_to("nowhere")
    with pytest.raises(UserError, match="no finished session"):
        report.find_sessions(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'"'])
def test_damaged_metrics_do_not_hide_that_a_run_was_interrupted(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    assert sessions._epochs_done(tmp_path) == 0


def test_a_session_from_before_a_setting_was_added_has_its_default(tmp_path):
    info = json.loads(session()["run.json"])
    del info["settings"]["skip_bad"]
    folder = sessions_with(tmp_path, "run.json", _json(info))
    assert read_run(folder / "b").info["settings"] == Experiment(epochs=3, weights="none").settings()


CLASS_NAMES = st.lists(
    st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=5).filter(
        lambda name: name not in ("photo", "label")
    ),
    min_size=2,
    max_size=4,
    unique=True,
)


@given(CLASS_NAMES)
@example(["0", "00"])
@example(["a", "a.1", '"', " ,"])
def test_any_class_names_come_back_from_a_sessions_tables(place, classes):
    info = json.loads(session()["run.json"])
    info["dataset"]["classes"] = dict.fromkeys(classes, 3)
    info["split"]["validation"] = len(classes)
    folder = sessions_with(place / "named", "run.json", _json(info)) / "b"
    labels, probabilities = np.arange(len(classes)), np.eye(len(classes))
    photos = [f"{name}/{name}.jpg" for name in classes]
    write_predictions(folder / "predictions.csv", photos, labels, probabilities, classes)
    run = read_run(folder)
    assert (run.classes, list(run.predictions["label"])) == (classes, classes)
    assert list(run.predictions["photo"]) == photos
    np.testing.assert_array_equal(run.predictions[classes], probabilities)


# checkpoints and weights

# what a checkpoint takes from run.json
INFO = {
    "settings": {"epochs": 3},
    "dataset": {"fingerprint": "d", "classes": {"aster": 6, "broom": 6}},
    "split": {"fingerprint": "s", "validation": 3},
    "weights": {"sha256": None},
    "precision": "float32",
    "device": {"type": "cpu"},
    "versions": {"torch": "2"},
    "commit": None,
    "earlier": [],
}
TENSORS = st.sampled_from(
    [
        torch.zeros(2),
        torch.full((2,), torch.nan),
        torch.tensor(0.5),
        torch.zeros(0),
        torch.zeros(3, 2, dtype=torch.int64),
        torch.full((3, 2), torch.nan),
        torch.zeros(3, 2, dtype=torch.float16),
        torch.zeros(2, dtype=torch.bool),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(1).expand(2, 8),
        nn.Parameter(torch.zeros(2, 8)),
    ]
)


def tiny_states():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, StepLR(optimizer, 2)


@cache
def checkpoint():
    """A last.pt after one epoch."""
    model, optimizer, scheduler = tiny_states()
    model(torch.ones(2, 3, 2, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    with TemporaryDirectory() as folder:
        write_last(Path(folder), INFO, model, optimizer, scheduler, [EpochMetrics(0, *[0.25] * 9)], torch.zeros(3, 2))
        return (Path(folder) / "last.pt").read_bytes()


def go_on(folder, content):
    """Read a last.pt, and do with it what the end of a session does."""
    (folder / "last.pt").write_bytes(content)
    info = copy.deepcopy(INFO)
    history, logits = read_last(folder, info, *tiny_states())
    write_metrics(folder / "metrics.csv", history)
    write_info(folder, info)
    assert logits.softmax(dim=1).numpy().shape == (3, 2)
    return history


@given(
    st.binary()
    | st.deferred(lambda: damaged(checkpoint()) | altered(_untorch(checkpoint()), ODD | TENSORS).map(_torch))
)
def test_checkpoints(place, content):
    history = outcome(go_on, place, content)
    assert history is None or [row.epoch for row in history] == list(range(len(history)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda last: last["history"][0].update(epoch=1),
        lambda last: last["history"].append(last["history"][0]),
        lambda last: last["history"][0].update(val_acc=torch.tensor(0.5)),
        lambda last: last["history"][0].update(val_acc=float("nan")),
        lambda last: last.update(logits=last["logits"].long()),
        lambda last: last.update(logits=last["logits"] + torch.nan),
        lambda last: last.update(logits=torch.zeros(4, 2)),
        lambda last: last.update(earlier=[torch.zeros(1)]),
        lambda last: last.update(earlier=[{"epochs": 1}]),
        lambda last: last.pop("scheduler"),
    ],
)
def test_a_checkpoint_with_a_wrong_part_is_damaged(tmp_path, spoil):
    last = _untorch(checkpoint())
    assert len(go_on(tmp_path, _torch(last))) == 1
    spoil(last)
    with pytest.raises(UserError, match=r"last\.pt can't be read"):
        go_on(tmp_path, _torch(last))


@pytest.fixture(scope="module")
def tiny_network():
    """In the place of any of torchvision's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowerlib.model.get_model", lambda name, weights: tiny_states()[0])
        yield


def use_weights(folder, content):
    path = folder / "weights.pth"
    path.write_bytes(content)
    return build_model("resnet18", 4, load_weights(str(path), "resnet18"))(torch.ones(2, 3, 2, 2))


@cache
def weights():
    return dict(tiny_states()[0].state_dict())


@given(st.binary() | st.deferred(lambda: damaged(_torch(weights())) | altered(weights(), ODD | TENSORS).map(_torch)))
def test_weights_files(place, tiny_network, content):
    logits = outcome(use_weights, place, content)
    assert logits is None or logits.shape == (2, 4)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.update({1: torch.zeros(1)}),
        lambda state: state.update({"0.bias": torch.zeros(3)}),
        lambda state: state.update({"0.bias": torch.zeros(2, device="meta")}),
        lambda state: state.pop("0.bias"),
    ],
)
def test_weights_with_a_wrong_part_are_refused(tmp_path, tiny_network, spoil):
    state = dict(weights())
    assert use_weights(tmp_path, _torch(state)).shape == (2, 4)
    spoil(state)
    with pytest.raises(UserError, match=r"weights\.pth"):
        use_weights(tmp_path, _torch(state))


# photos and their cache


def _saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def photos():
    """A small photo in every format that is read, and in several kinds of each."""
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8))
    palette, exif = rgb.quantize(8), rgb.getexif()
    exif[0x0112] = 6
    return (
        _saved(rgb, "jpeg", exif=exif),
        _saved(rgb, "jpeg", progressive=True),
        _saved(rgb.convert("CMYK"), "jpeg"),
        _saved(rgb, "png", exif=exif),
        _saved(rgb.convert("1"), "png"),
        _saved(rgb.convert("LA"), "png"),
        _saved(palette, "png", transparency=b"\0\1"),
        _saved(palette, "gif", save_all=True, append_images=[palette]),
        _saved(rgb, "webp", exif=exif, save_all=True, append_images=[rgb]),
        _saved(rgb, "webp", lossless=True),
        _saved(rgb, "bmp"),
        _saved(palette, "bmp"),
        _saved(rgb, "tiff", exif=exif),
        _saved(rgb, "tiff", compression="tiff_lzw"),
        _saved(rgb, "tiff", compression="jpeg"),
        _saved(rgb.convert("CMYK"), "tiff", compression="tiff_deflate"),
    )


@given(st.binary() | st.deferred(lambda: st.sampled_from(photos()).flatmap(damaged)))
@example(b"II\x2a\x00\x00\x00\x00\x01")  # Pillow warns of its metadata
def test_photos(place, content):
    (place / "0.jpg").write_bytes(content)
    decoded = []
    (file,) = outcome(inspect, place, ["0.jpg"], decoded.append)
    if file.problem:
        assert len(file.problem.splitlines()) == 1
        assert len(file.problem) < 400
    else:
        assert [(pixels.dtype, pixels.ndim, pixels.shape[2]) for pixels in decoded] == [(np.uint8, 3, 3)]


def test_a_photo_that_is_a_program_is_not_run(tmp_path, monkeypatch):
    def run(*arguments, **options):
        raise AssertionError("Ghostscript would have been run")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    (tmp_path / "0.jpg").write_bytes(_saved(Image.new("RGB", (9, 9)), "eps"))
    (file,) = inspect(tmp_path, ["0.jpg"], decoded=len)
    assert "not an image in any format that is read" in file.problem


@cache
def sizes_file():
    file = io.BytesIO()
    np.save(file, np.array([[3, 5], [1, 1], [2, 7]], np.int64))
    return file.getvalue()


@given(st.binary() | st.deferred(lambda: damaged(sizes_file())))
@example(b"PK\x05\x06" + bytes(18))
@example(b"PK\x03\x04")
def test_caches(place, content):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERLIB_CACHE", str(place / "cache"))
        with new_cache("a") as writer:
            if writer:
                writer.append(np.zeros((10, 3, 3), np.uint8))
        (folder,) = (place / "cache").glob("a-*")
        (folder / "sizes.npy").write_bytes(content)
        (folder / "pixels.u8").write_bytes(bytes(90))
        found = outcome(find_cache, "a")
        assert found is None or [found.read(index).ndim for index in range(len(found.sizes))]


# archives

MEMBERS = {"rose/1.jpg": b"a photo", "tulip/2.jpg": b"another one"}
WANTED = [ManifestRow(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in MEMBERS.items()]


def _zip(method):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for path, data in MEMBERS.items():
            archive.writestr(path, data)
    return file.getvalue()


def _tar(form, prefix=""):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for path, data in MEMBERS.items():
            member = tarfile.TarInfo(prefix + path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def _gzip(content):
    return gzip.compress(content, 1, mtime=0)


ZIPS = [_zip(method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)]
TARS = [
    _tar(tarfile.USTAR_FORMAT),
    _tar(tarfile.PAX_FORMAT, "long/" * 60),
    _tar(tarfile.GNU_FORMAT, "long/" * 60),
]


def unpack(folder, content):
    (folder / "archive").write_bytes(content)
    gathered = Gathering(folder / "photos", WANTED)
    fetch._unpack(folder / "archive", gathered)
    return gathered


def files_in(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if not file.is_dir()}


@given(
    st.binary()
    | st.sampled_from([*ZIPS, *map(_gzip, TARS)]).flatmap(damaged)
    | st.sampled_from(TARS).flatmap(damaged).map(_gzip)
)
@example(b"PK\x01\x02".ljust(46, b"\0") + b"PK\x05\x06" + bytes(8) + b"\x2e" + bytes(9))  # a member without a name
@example(ZIPS[0])
@example(_gzip(TARS[1]))
def test_archives(content):
    with TemporaryDirectory() as folder:
        folder = Path(folder)
        outcome(unpack, folder, content)
        written = files_in(folder)
    assert written.items() <= {f"photos/{path}": data for path, data in MEMBERS.items()}.items()


@pytest.mark.parametrize("content", [*ZIPS, *map(_gzip, TARS)])
def test_every_kind_of_archive_is_unpacked(tmp_path, content):
    assert not unpack(tmp_path, content).missing
    assert files_in(tmp_path / "photos") == MEMBERS


def _member(kind, size, name="x", link=""):
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member.tobuf(tarfile.GNU_FORMAT)


def test_a_member_of_negative_size_ends_the_archive(tmp_path, monkeypatch):
    members = []

    def keep(gathered, data):
        members.append(data)
        assert len(members) < 9, "the archive goes round in a circle"

    monkeypatch.setattr(Gathering, "keep", keep)
    with pytest.raises(fetch._Refused, match="negative size"):
        unpack(tmp_path, _gzip(_member(tarfile.REGTYPE, 0) + _member(tarfile.REGTYPE, -512)))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_long_name_is_not_taken_into_memory(tmp_path, kind):
    content = _gzip(_member(kind, 32 << 20) + bytes(32 << 20))
    tracemalloc.start()
    with pytest.raises(fetch._Refused, match="a part of 33,554,432 bytes"):
        unpack(tmp_path, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_what_a_member_of_no_known_kind_claims_to_hold_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_BYTES", 1 << 20)
    with pytest.raises(fetch._Refused, match="unpacks to more than"):
        unpack(tmp_path, _gzip(_member(b"Z", 1 << 21) + bytes(1 << 21)))


@pytest.mark.parametrize(
    "kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_devices_and_pipes_are_passed_over(tmp_path, kind):
    gathered = unpack(tmp_path, _gzip(_member(kind, 0, "rose/1.jpg", "/etc/hostname") + TARS[0]))
    assert not gathered.missing
    assert files_in(tmp_path / "photos") == MEMBERS
    photo = (tmp_path / "photos/rose/1.jpg").lstat()
    assert stat.S_ISREG(photo.st_mode)
    assert photo.st_nlink == 1


# code


class Mine:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def as_experiments(folder, mine):
    (folder / "experiments.yaml").write_text(f"a: !!python/object/apply:os.mkdir [{mine.folder}]")
    read_experiments(folder / "experiments.yaml")


def as_override(folder, mine):
    parse_override(f"epochs=!!python/object/apply:os.mkdir [{mine.folder}]")


def as_title(folder, mine):
    (folder / "title.yaml").write_text(f"title: !!python/object/apply:os.mkdir [{mine.folder}]")
    report.title_page([], folder / "title.yaml")


def as_checkpoint(folder, mine):
    (folder / "last.pt").write_bytes(_torch(_untorch(checkpoint()) | {"earlier": mine}))
    read_last(folder, copy.deepcopy(INFO), *tiny_states())


def as_pickled_checkpoint(folder, mine):
    (folder / "last.pt").write_bytes(pickle.dumps(mine, protocol=2))
    read_last(folder, copy.deepcopy(INFO), *tiny_states())


def as_weights(folder, mine):
    use_weights(folder, _torch({"x": mine}))


def as_pickled_weights(folder, mine):
    use_weights(folder, pickle.dumps(mine, protocol=2))


def as_cache(folder, mine):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERLIB_CACHE", str(folder))
        with new_cache("a") as writer:
            writer.append(np.zeros((1, 1, 3), np.uint8))
        (sizes,) = folder.glob("a-*/sizes.npy")
        np.save(sizes, np.array([mine], object), allow_pickle=True)
        if find_cache("a") is None:
            raise UserError("no cache")


@pytest.mark.parametrize(
    "read",
    [
        as_experiments,
        as_override,
        as_title,
        as_checkpoint,
        as_pickled_checkpoint,
        as_weights,
        as_pickled_weights,
        as_cache,
    ],
)
def test_no_file_runs_code(tmp_path, read):
    mine = Mine(tmp_path / "made")
    pickle.loads(pickle.dumps(mine, protocol=2))
    mine.folder.rmdir()  # it would work
    with pytest.raises(UserError):
        read(tmp_path, mine)
    assert not mine.folder.exists()
