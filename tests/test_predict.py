"""The verb `predict`: the same answers as the session's own, and what is said of what is no photo."""

import shutil
import subprocess
import sys
from datetime import datetime

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from flowerlib import predict_page
from flowerlib.cli import main
from flowerlib.data.photos import load_photos
from flowerlib.data.synthetic import write_synthetic
from flowerlib.experiment import Experiment
from flowerlib.files import NOTEBOOKS
from flowerlib.notebooks import execute_notebook
from flowerlib.runs import read_run
from flowerlib.training.loop import train_and_evaluate

SETTINGS = {"weights": "none", "image_size": 40, "epochs": 1, "batch_size": 8, "device": "cpu", "repeats": 0}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The folder of a session, beside ``pictures``, with its best.pt also as ``best.onnx``."""
    folder = tmp_path_factory.mktemp("predictions")
    write_synthetic(folder / "pictures", photos_per_class=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERLIB_CACHE", str(folder / "cache"))
        train_and_evaluate(Experiment(**SETTINGS), load_photos(str(folder / "pictures")), folder / "run")
    assert main(["export", str(folder / "run" / "best.pt"), str(folder / "run" / "best.onnx")]) == 0
    return folder / "run"


@pytest.fixture
def pictures(session):
    return session.parent / "pictures"


def predict(checkpoint, *places, status=0, csv, **options):
    more = [f"--{key}={value}" for key, value in options.items()]
    assert main(["predict", str(checkpoint), *map(str, places), f"--csv={csv}", *more]) == status
    return pd.read_csv(csv, index_col="photo")


def test_last_pt_gives_the_sessions_predictions_again(session, pictures, tmp_path):
    run = read_run(session)
    found = predict(session / "last.pt", pictures, csv=tmp_path / "out" / "all.csv")
    assert len(found) == 40
    ours = found.loc[[str(pictures / photo) for photo in run.predictions["photo"]], run.classes]
    np.testing.assert_allclose(ours, run.predictions[run.classes], atol=1e-4)
    assert not found["unsure"].any()


def test_the_onnx_file_answers_as_best_pt_does_and_without_pytorch(session, pictures, tmp_path):
    best = predict(session / "best.pt", pictures, csv=tmp_path / "best.csv")
    command = "import sys; from flowerlib.cli import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    words = ["predict", session / "best.onnx", pictures, "--csv", tmp_path / "onnx.csv"]
    said = subprocess.check_output([sys.executable, "-c", command, *map(str, words)], text=True)
    assert said.splitlines()[-1] == "0 False"
    onnx = pd.read_csv(tmp_path / "onnx.csv", index_col="photo")
    np.testing.assert_allclose(best.drop(columns="unsure"), onnx.drop(columns="unsure"), atol=1e-5)


def test_answers_are_calibrated_and_of_an_older_best_pt_neither_that_nor_unsure(session, pictures, tmp_path, capsys):
    content = torch.load(session / "best.pt", weights_only=True)
    (photo,) = sorted(pictures.rglob("*.jpg"))[:1]
    torch.save(content | {"temperature": 2.0, "unsure_below": 1.0}, tmp_path / "cooler.pt")
    torch.save(
        {key: content[key] for key in content if key not in ("temperature", "unsure_below")}, tmp_path / "old.pt"
    )
    cooler, old = (
        predict(tmp_path / f"{name}.pt", photo, csv=tmp_path / "one.csv", top=2) for name in ("cooler", "old")
    )
    assert (cooler["unsure"].item(), old["unsure"].item()) == (True, False)
    halved = torch.tensor(old.drop(columns="unsure").to_numpy()).log() / 2
    np.testing.assert_allclose(cooler.drop(columns="unsure"), halved.softmax(dim=1), atol=1e-5)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(str(photo))
    assert (first.endswith("unsure"), second.endswith("unsure")) == (True, False)
    likely = old.drop(columns="unsure").iloc[0].nlargest(2)
    assert second.split()[1:] == [word for name, value in likely.items() for word in (name, f"{value:.3f}")]


@pytest.fixture
def mixture(pictures, tmp_path):
    """Two photos among much else."""
    folder = tmp_path / "mixture"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    photos = sorted(pictures.rglob("*.jpg"))
    shutil.copy(photos[0], folder / "deep" / "er" / "photo.jpg")
    shutil.copy(photos[1], folder / "no suffix")
    shutil.copy(photos[2], folder / ".hidden" / "photo.jpg")
    (folder / "cut.jpg").write_bytes(photos[3].read_bytes()[:-2000])
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    (folder / "raw.cr2").write_bytes(b"II*\0\x10\0\0\0CR\2\0")
    (folder / "notes.txt").write_text("water them")
    return folder


def test_a_mixture_is_answered_and_what_is_left_out_is_said(session, mixture, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    found = predict(
        session / "best.onnx", mixture, mixture / "notes.txt", csv=tmp_path / "a.csv", sheet=sheet, status=1
    )
    assert found.index.tolist() == [str(mixture / "no suffix"), str(mixture / "deep" / "er" / "photo.jpg")]
    said = capsys.readouterr()
    for name in ("clip.mp4", "raw.cr2"):
        assert f"left out: 1, such as {mixture / name}" in said.out
    assert f"2 of 4 photos can't be read, and have no answer: {mixture / 'cut.jpg'} (the file is cut off)" in said.err
    assert f"{mixture / 'notes.txt'} (not a photo that is read here (.txt))" in said.err
    assert Image.open(sheet).format == "PNG"


@pytest.mark.parametrize(
    ("checkpoint", "place", "said"),
    [
        ("missing.pt", "deep", "missing.pt can't be read"),
        ("notes.txt", "deep", "notes.txt can't be used as a network"),
        ("other.pt", "deep", "other.pt is not the best.pt of a session (it lacks 'classes')"),
        ("last.pt", "deep", "The run.json beside"),
        ("best.onnx", ".hidden/empty", "There is no photo in"),
        ("best.onnx", "nowhere", "nowhere (No such file or directory)"),
        ("best.onnx", "clip.mp4", "clip.mp4 (not a photo that is read here (.mp4))"),
        ("best.onnx", "raw.cr2", "raw.cr2 (not a photo that is read here (.cr2))"),
        ("best.onnx", "notes.txt", "notes.txt (not a photo that is read here (.txt))"),
    ],
)
def test_what_can_t_be_used_is_said_in_one_paragraph(session, mixture, capfd, checkpoint, place, said):
    torch.save({"model": 1, "state_dict": {}}, mixture / "other.pt")
    for name in ("best.onnx", "last.pt"):
        shutil.copy(session / name, mixture)
    (mixture / ".hidden" / "empty").mkdir()
    assert main(["predict", str(mixture / checkpoint), str(mixture / place)]) == 1
    error = capfd.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("checkpoint", "folder", "figures", "said"),
    [
        ("run/best.pt", "mixture", 2, "cut.jpg can't be read: the file is cut off."),
        ("run/best.onnx", None, 0, "FileUpload"),
        ("pictures", None, 0, "error: The network"),
        ("run/best.onnx", "run", 0, "error: There is no photo in the folder"),
    ],
)
def test_the_notebook_shows_answers_and_says_what_goes_wrong(
    session, mixture, tmp_path, checkpoint, folder, figures, said
):
    places = {
        "checkpoint": str(session.parent / checkpoint),
        "folder": folder and str(mixture if folder == "mixture" else session),
    }
    execute_notebook(NOTEBOOKS / "predict.ipynb", tmp_path / "done.ipynb", places, log=tmp_path / "log")
    outputs = [out for cell in nbformat.read(tmp_path / "done.ipynb", 4).cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == figures
    assert said in str(outputs)


def test_photos_given_to_the_notebook_are_answered(session, mixture, monkeypatch):
    shown = []
    monkeypatch.setattr(predict_page, "display", shown.append)
    predict_page.predict_page(str(session / "best.pt"), None)
    (box,) = shown
    button, _ = box.children
    photo = mixture / "no suffix"
    content = memoryview(photo.read_bytes())
    button.value = (
        {"name": "mine.jpg", "type": "", "size": len(content), "content": content, "last_modified": datetime.now()},
    )
    photo_ax, heat_ax, bars_ax = shown[1].axes
    assert photo_ax.get_title() == "mine.jpg"
    assert heat_ax.collections
    assert len(bars_ax.patches) == 5
