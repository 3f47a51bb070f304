"""Whole runs on small data: the command line, the notebooks, the PDF."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
import torch
from nbclient.exceptions import DeadKernelError
from PIL import Image
from pypdf import PdfReader
from torchvision.models import resnet34

from flowerlib import sessions
from flowerlib.cli import main
from flowerlib.data import duplicates
from flowerlib.data.photos import paper_fingerprint
from flowerlib.data.synthetic import write_synthetic
from flowerlib.errors import UserError
from flowerlib.notebooks import execute_notebook
from flowerlib.report.build import find_sessions
from flowerlib.report.sources import load_ablations, load_seeds, load_sessions
from flowerlib.runs import read_run

SESSIONS = ("resnet18-bs32", "resnet18-bs64", "resnet34-bs32")
FAST = ["--weights=none", "--set=epochs=1", "--set=image_size=40", "--set=device=cpu", "--set=repeats=3"]


@pytest.fixture(scope="module")
def synthetic_runs(tmp_path_factory):
    """All three sessions on a few of the embedded pictures, by the command line."""
    folder = tmp_path_factory.mktemp("whole")
    write_synthetic(folder / "pictures", photos_per_class=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERLIB_CACHE", str(folder / "cache"))
        assert main(["run", "--data", str(folder / "pictures"), "--runs", str(folder / "runs"), *FAST]) == 0
    return folder / "runs" / "pictures"


def executed(path):
    return nbformat.read(path, as_version=4)


def test_each_session_leaves_its_tables_log_and_executed_notebook(synthetic_runs):
    assert sorted(path.name for path in synthetic_runs.glob("[!.]*")) == ["duplicates.csv", *sorted(SESSIONS)]
    for name in SESSIONS:
        folder = synthetic_runs / name
        run = read_run(folder)
        assert run.info.finished
        assert run.info.settings.image_size == 40
        assert len(run.metrics) == 1
        assert {"last.pt", "best.pt", "session.ipynb", "session.log"} <= {path.name for path in folder.iterdir()}
        assert re.search(r"epoch +0 of 1: train loss", (folder / "session.log").read_text())
        outputs = [out for cell in executed(folder / "session.ipynb").cells for out in cell.get("outputs", [])]
        assert sum("image/png" in out.get("data", {}) for out in outputs) == 4
        assert not any(out.output_type == "error" for out in outputs)
    assert read_run(synthetic_runs / "resnet18-bs64").info.settings.batch_size == 64
    assert read_run(synthetic_runs / "resnet34-bs32").info.settings.model == "resnet34"


def test_the_report_says_what_the_tables_say(synthetic_runs, tmp_path, capsys):
    # as if they were the embedded pictures, which lie in the project's own folder
    runs = tmp_path / "runs" / "synthetic"
    shutil.copytree(synthetic_runs, runs)
    for name in SESSIONS:
        info = json.loads((runs / name / "run.json").read_text())
        info["dataset"]["name"] = "synthetic"
        (runs / name / "run.json").write_text(json.dumps(info))

    assert (
        main(["report", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--engine", "typst"]) == 0
    )
    assert str(tmp_path / "out" / "report.pdf") in capsys.readouterr().out

    text = re.sub(r"\s+", " ", " ".join(page.extract_text() for page in PdfReader(tmp_path / "out/report.pdf").pages))
    for section in ("Abstract", "Keywords", "Introduction", "Related work", "Method", "Experiments", "References"):
        assert section in text
    tables = {path.stem for path in (tmp_path / "out" / "tables").glob("*.tex")}
    in_sentences = {"overall", "pairs", "without"}
    assert {path.stem for path in (tmp_path / "out" / "tables").glob("*.csv")} == tables | in_sentences
    figures = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    sessions_parts = {f"session-{name}" for name in SESSIONS}
    assert tables == {*sessions_parts, "method", "summary", "durations", "classes", "data", "compute"}
    assert figures == {*sessions_parts, "confusion", "reliability", "gallery-mistakes", "gallery-hits", "heat"}
    assert "course report" not in text.split("Introduction")[1].split("References")[0]
    for number in range(1, len(tables) + 1):
        assert f"Table {number}:" in text
    for number in range(1, len(figures) + 1):
        assert f"Figure {number}:" in text
    assert text.count("demonstration on synthetic images") == 1
    # but for the notice itself, and the tables of method, photos and computation
    assert text.count("†") == 1 + len(tables) + len(figures) - 3
    assert "random weights" in text
    for name in SESSIONS:
        row = read_run(runs / name).metrics.iloc[0]
        for column in ("train_loss", "train_acc", "val_aug_loss", "val_aug_acc", "val_acc"):
            assert f"{row[column]:.3f}".removeprefix("0") in text


def test_cross_validation_of_ones_own_photos(photo_folder, tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("own: {folds: 2, split: stratified, class_weights: balanced}\n")
    for number in range(5):
        (photo_folder / "broom" / f"{number}.jpg").unlink()
    arguments = ["--data", str(photo_folder), "--experiments", str(tmp_path / "own.yaml")]
    assert main(["run", *arguments, "--runs", str(tmp_path / "runs"), *FAST]) == 0
    runs = tmp_path / "runs/photos/own"
    said = capsys.readouterr().out
    assert said.count("balanced acc") == 2
    assert f"labels look wrong; {runs / 'own-fold1/labels.csv'}" in said

    assert main(["report", "--runs", str(runs), "--out", str(tmp_path / "out"), "--engine", "typst"]) == 0
    text = re.sub(r"\s+", " ", " ".join(page.extract_text() for page in PdfReader(tmp_path / "out/report.pdf").pages))
    assert "two networks are each trained without one part" in text
    assert "The folds share training photos" in text
    assert "the smallest class is broom" in text
    assert "The most doubtful labels" in text
    right = sum(
        (run.predictions[run.classes].idxmax(axis="columns") == run.predictions["label"]).sum()
        for run in (read_run(runs / f"own-fold{fold}") for fold in (0, 1))
    )
    summary = pd.read_csv(tmp_path / "out/tables/summary.csv").iloc[0]
    assert (summary["session"], summary["clean"]) == ("own", pytest.approx(right / 19))
    assert summary["clean_low"] < summary["clean"] < summary["clean_high"]


def test_finished_sessions_are_skipped_and_others_of_the_same_name_refused(
    synthetic_runs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(duplicates, "find_pairs", None)  # nor are the photos searched again
    runs = tmp_path / "runs"
    shutil.copytree(synthetic_runs, runs / synthetic_runs.name)
    source = read_run(synthetic_runs / SESSIONS[0]).info.settings.data
    arguments = ["run", "--data", source, "--runs", str(runs), *FAST]
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}

    assert main(arguments) == 0
    assert capsys.readouterr().out.count("already finished") == 3
    assert main([*arguments, "--set", "momentum=0.5"]) == 1
    assert "momentum: 0.9 then, 0.5 now" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


def test_sessions_that_an_override_makes_equal_run_once(photo_folder, tmp_path, capsys, monkeypatch):
    run = []
    monkeypatch.setattr(sessions, "run_session", lambda plan, *_: run.append(plan.name))
    arguments = ["--data", str(photo_folder), "--runs", str(tmp_path / "runs"), *FAST, "--set", "batch_size=8"]
    assert main(["run", "resnet18-bs32", "resnet18-bs64", *arguments]) == 0
    assert "resnet18-bs64: left out: with these settings it equals resnet18-bs32" in capsys.readouterr().out
    assert run == ["resnet18-bs32"]


def test_a_full_disk_on_papermills_side_is_said(photo_folder, tmp_path, capsys, monkeypatch):
    def fill(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(papermill, "execute_notebook", fill)
    arguments = ["--data", str(photo_folder), "--runs", str(tmp_path / "runs"), *FAST]
    assert main(["run", "resnet18-bs32", *arguments]) == 1
    said = capsys.readouterr().err
    assert "session.ipynb" in said
    assert "No space left on device" in said
    assert "the same command, without --force, resumes where it stopped" in said


def test_a_failing_session_leaves_its_notebook_and_the_others_go_on(photo_folder, tmp_path, capsys, monkeypatch):
    experiments = tmp_path / "experiments.yaml"
    experiments.write_text("bad:\n  seed: 2\ngood:\n")
    spoilt = tmp_path / "runs" / photo_folder.name / "bad" / "last.pt"
    spoilt.parent.mkdir(parents=True)
    spoilt.write_text("no checkpoint")
    folders = ["--data", str(photo_folder), "--runs", str(tmp_path / "runs")]
    assert main(["run", "--experiments", str(experiments), *folders, *FAST]) == 1
    said = capsys.readouterr()
    assert "1 of 2 sessions failed: bad" in said.err
    assert f"The checkpoint {spoilt} can't be read" in said.err
    assert "Traceback" not in said.err
    runs = tmp_path / "runs" / photo_folder.name
    assert read_run(runs / "good").info.finished
    outputs = [out for cell in executed(runs / "bad" / "session.ipynb").cells for out in cell.get("outputs", [])]
    assert any(out.output_type == "error" and out.ename == "UserError" for out in outputs)
    assert "Traceback" in (runs / "bad" / "session.log").read_text()


def test_changed_photos_are_not_taken_for_a_finished_run(synthetic_runs, tmp_path, capsys):
    source = Path(read_run(synthetic_runs / SESSIONS[0]).info.settings.data)
    shutil.copytree(source, tmp_path / source.name)
    shutil.copytree(synthetic_runs, tmp_path / "runs" / synthetic_runs.name)
    arguments = ["run", "--data", str(tmp_path / source.name), "--runs", str(tmp_path / "runs"), *FAST]
    next((tmp_path / source.name / "rose").iterdir()).unlink()
    assert main(arguments) == 1
    assert "data's fingerprint" in capsys.readouterr().err


def test_sessions_of_different_photos_are_not_reported_together(synthetic_runs, tmp_path, capsys):
    runs = tmp_path / "runs"
    shutil.copytree(synthetic_runs, runs)
    info = json.loads((runs / SESSIONS[1] / "run.json").read_text())
    info["split"]["fingerprint"] = "another"
    (runs / SESSIONS[1] / "run.json").write_text(json.dumps(info))
    assert main(["report", "--runs", str(runs), "--out", str(tmp_path / "out")]) == 1
    assert "different photos or another split" in capsys.readouterr().err


def test_the_report_says_what_it_leaves_out(synthetic_runs, tmp_path):
    runs = tmp_path / "runs"
    for name in ("flowers", "own"):
        shutil.copytree(synthetic_runs, runs / name)
    for name in SESSIONS[1:]:
        info = json.loads((runs / "own" / name / "run.json").read_text())
        (runs / "own" / name / "run.json").write_text(json.dumps(info | {"finished": False}))
    assert find_sessions(runs) == runs / "flowers"
    assert find_sessions(runs / "own") == runs / "own"
    assert [run.name for run in load_sessions(runs / "own")] == [SESSIONS[0]]

    shutil.rmtree(runs / "own")
    (runs / "flowers").rename(tmp_path / "imagenet-lite0")
    (runs / "my-photos").mkdir()
    (tmp_path / "imagenet-lite0").rename(runs / "my-photos/imagenet-lite0")
    assert find_sessions(runs) == runs / "my-photos/imagenet-lite0"


def test_sessions_of_other_files_are_found_beside(synthetic_runs, tmp_path):
    assert load_seeds(tmp_path) == load_ablations(tmp_path) == []
    shutil.copytree(synthetic_runs / SESSIONS[0], tmp_path / "ablations/all")
    assert load_ablations(tmp_path) == []  # nothing to compare it with
    shutil.copytree(synthetic_runs / SESSIONS[1], tmp_path / "ablations/no-flip")
    assert [session.name for session in load_ablations(tmp_path)] == ["all", "no-flip"]
    for name in reversed(SESSIONS):
        shutil.copytree(synthetic_runs / name, tmp_path / "seeds" / name)
    assert [session.name for session in load_seeds(tmp_path)] == list(SESSIONS)


def test_a_forced_run_that_fails_keeps_the_one_before(synthetic_runs, tmp_path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    shutil.copytree(synthetic_runs, runs / synthetic_runs.name)
    folder = runs / synthetic_runs.name / SESSIONS[0]
    experiment = read_run(folder).info.settings
    before = (folder / "metrics.csv").read_bytes()

    def die(*arguments, **options):
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(papermill, "execute_notebook", die)
    assert sessions.run_sessions({SESSIONS[0]: experiment}, runs, force=True) == [SESSIONS[0]]
    error = capsys.readouterr().err
    assert "for lack of memory" in error
    kept = folder.with_name(f".{SESSIONS[0]}.before")
    assert str(kept) in error
    assert (kept / "metrics.csv").read_bytes() == before
    # forced again, the failed run gives way and not the good one
    assert sessions.run_sessions({SESSIONS[0]: experiment}, runs, force=True) == [SESSIONS[0]]
    assert (kept / "metrics.csv").read_bytes() == before
    # and a finished run takes the place of what an earlier forced one left aside
    kept.rename(folder.with_name("finished"))
    shutil.rmtree(folder)
    folder.with_name("finished").rename(folder)
    kept.mkdir()
    (folder / "run.json").write_text("damaged")  # no reason to lose what lies beside it
    assert sessions.run_sessions({SESSIONS[0]: experiment}, runs, force=True) == [SESSIONS[0]]
    assert (kept / "metrics.csv").read_bytes() == before


def test_weights_that_do_not_fit_are_found_before_force_removes_anything(synthetic_runs, tmp_path, capsys):
    runs = tmp_path / "runs"
    shutil.copytree(synthetic_runs, runs / synthetic_runs.name)
    torch.save(resnet34().state_dict(), tmp_path / "other.pth")
    source = read_run(synthetic_runs / SESSIONS[0]).info.settings.data
    before = sorted(runs.rglob("*"))
    wrong = ["--weights", str(tmp_path / "other.pth"), "--force"]
    assert main(["run", SESSIONS[0], "--data", source, "--runs", str(runs), *wrong, *FAST[1:]]) == 1
    assert "do not fit resnet18" in capsys.readouterr().err
    assert sorted(runs.rglob("*")) == before


def test_force_runs_again(synthetic_runs, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(synthetic_runs, runs / synthetic_runs.name)
    folder = runs / synthetic_runs.name / SESSIONS[0]
    before = read_run(folder)
    experiment = before.info.settings.model_copy(update={"seed": 1})
    assert sessions.run_sessions({SESSIONS[0]: experiment}, runs, force=True) == []
    assert read_run(folder).info.seed == 1
    assert not read_run(folder).metrics["train_loss"].equals(before.metrics["train_loss"])


def test_a_parameter_that_the_notebook_lacks_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match="no parameter epoch"):
        execute_notebook(sessions.SESSION_NOTEBOOK, tmp_path / "out.ipynb", {"epoch": 1}, log=tmp_path / "out.log")
    assert not list(tmp_path.iterdir())


def spoil(folder: Path, how: str) -> None:
    photo = folder / "aster" / "0.jpg"
    if how == "text":
        photo.write_text("no photo at all")
    elif how == "truncated":
        Image.new("RGB", (300, 300), "red").save(photo)
        photo.write_bytes(photo.read_bytes()[:400])
    elif how == "one class":
        for name in ("broom", "clover"):
            shutil.rmtree(folder / name)
    elif how == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif how == "missing":
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("text", "aster/0.jpg"),
        ("truncated", "aster/0.jpg"),
        ("one class", "at least two classes"),
        ("empty", "is empty"),
        ("missing", "can't be read"),
    ],
)
def test_bad_photos_are_one_clear_paragraph_before_anything_runs(photo_folder, tmp_path, capsys, how, said):
    spoil(photo_folder, how)
    arguments = ["--data", str(photo_folder), "--runs", str(tmp_path / "runs")]
    assert main(["run", *arguments, *FAST]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "epoch=2"], "Did you mean 'epochs'"),
        (["--set", "epochs"], "KEY=VALUE"),
        (["resnet50"], "has no session 'resnet50'"),
        (["--weights", "nowhere.pth"], "no weights file"),
        (["--runs", "~nobody-here/runs"], "isn't known here"),
        (["--experiments", "nowhere.yaml"], "nowhere.yaml"),
        (["--weights", "none", "--set", "model=googlenet"], "does not end in one linear layer"),
        (["--weights", "none", "--set", "model=vit_b_32", "--set", "image_size=48"], "can't take pictures of 48×48"),
    ],
)
def test_mistakes_on_the_command_line(photo_folder, tmp_path, capsys, arguments, said):
    common = ["run", "--data", str(photo_folder), "--runs", str(tmp_path / "runs")]
    assert main([*common, *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert not (tmp_path / "runs").exists()


def test_an_unwritable_folder_of_runs(photo_folder, tmp_path, capsys):
    (tmp_path / "runs").write_text("a file, where a folder should be")
    assert main(["run", "--data", str(photo_folder), "--runs", str(tmp_path / "runs"), *FAST]) == 1
    assert "Nothing can be written to the folder" in capsys.readouterr().err


def test_a_report_without_sessions(tmp_path, capsys):
    assert main(["report", "--runs", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert ".venv/bin/flowerlib run" in capsys.readouterr().err


def test_a_session_of_the_real_photos(flowers_folder, weights_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_DATA", str(flowers_folder))
    monkeypatch.setenv("FLOWERLIB_WEIGHTS", str(weights_folder))
    arguments = ["--set", "epochs=1", "--set", "image_size=48", "--set", "repeats=1", "--runs", str(tmp_path)]
    assert main(["run", "resnet18-bs32", *arguments]) == 0
    run = read_run(tmp_path / "flowers" / "resnet18-bs32")
    assert (run.info.split.train, run.info.split.validation) == (2278, 570)
    assert run.info.dataset.fingerprint == paper_fingerprint()
    assert run.classes == ["daisy", "dandelion", "rose", "sunflower", "tulip"]
    assert list(run.info.dataset.classes.values()) == [588, 556, 583, 536, 585]
    assert run.info.weights.source in ("file", "imagenet")
    # better than guessing the largest class, which is right for one photo in five
    assert run.metrics["val_acc"].iloc[-1] > 0.3


def test_a_session_that_is_a_folder_of_sessions_is_not_set_aside(synthetic_runs, tmp_path, capsys):
    runs = tmp_path / "runs" / synthetic_runs.name
    shutil.copytree(synthetic_runs, runs / "mine")
    source = read_run(synthetic_runs / SESSIONS[0]).info.settings.data
    (tmp_path / "experiments.yaml").write_text("mine:\n")
    arguments = ["--experiments", str(tmp_path / "experiments.yaml"), "--runs", str(runs.parent), "--force"]
    assert main(["run", "--data", source, *arguments, *FAST]) == 1
    assert "holds other sessions" in capsys.readouterr().err
    assert (runs / "mine" / SESSIONS[0] / "run.json").exists()
