"""Faults: kills, full disks, damaged files. After each, the same command ends as if nothing had been."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import faults
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from flowerlib import files
from flowerlib.cli import main
from flowerlib.data.photos import load_photos
from flowerlib.errors import UserError
from flowerlib.files import locked
from flowerlib.runs import read_info, read_run
from flowerlib.training.loop import train_and_evaluate

SECONDS = ["train_seconds", "val_seconds"]
KILLED = -signal.SIGKILL
EPOCH = 3 + 1 + 1  # batches of 7: of 19 photos for training, and of 5 for validation, twice


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photos, and beside it the cache that every process of this module uses."""
    folder = tmp_path_factory.mktemp("faults") / "photos"
    noise = np.random.default_rng(0)
    for name in ("aster", "broom", "clover"):
        (folder / name).mkdir(parents=True)
        for index in range(8):
            Image.fromarray(noise.integers(0, 256, (50, 60, 3), np.uint8)).save(folder / name / f"{index}.png")
    assert faults.outcome(faults.decode, folder) == 0
    return folder


@pytest.fixture(scope="module")
def whole(photos):
    """The folder of a session that nothing happened to."""
    run_dir = photos.parent / "whole"
    assert faults.outcome(faults.session, photos, run_dir) == 0
    return run_dir


def contents(run_dir):
    """All that a session leaves, but for its seconds."""
    run = read_run(run_dir)
    assert run.info.finished
    checkpoints = [torch.load(run_dir / name, weights_only=True) for name in ("last.pt", "best.pt")]
    for row in checkpoints[0]["history"]:
        for column in SECONDS:
            row.pop(column)
    return run.metrics.drop(columns=SECONDS).to_csv(), (run_dir / "predictions.csv").read_bytes(), *checkpoints


def same(one, other):
    """Whether two nests of tensors and values are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def ends_as(whole, photos, run_dir):
    """Run the session once more, and see that it ends as an uninterrupted one, with nothing left lying about."""
    assert faults.outcome(faults.session, photos, run_dir) == 0
    assert same(contents(run_dir), contents(whole))
    assert not list(run_dir.rglob("*.part"))
    return True


@pytest.fixture(scope="module")
def seconds(photos):
    """How long the first session takes here; later ones take about half of it."""
    begun = perf_counter()
    assert faults.outcome(faults.session, photos, photos.parent / "timed") == 0
    return perf_counter() - begun


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_moments_again_and_again(photos, whole, seconds, tmp_path, seed):
    moments, kills, longest = random.Random(seed), 0, 0.4 * seconds
    for _ in range(20):
        process = faults.start(faults.session, photos, tmp_path / "run")
        process.join(timeout=moments.uniform(0.1, 1) * longest)
        process.kill()
        process.join()
        kills += process.exitcode == KILLED
        if process.exitcode == 0:
            if kills:
                break
            longest /= 2  # the machine was busier when the session was timed
            shutil.rmtree(tmp_path / "run")
    assert kills
    assert ends_as(whole, photos, tmp_path / "run")


@pytest.mark.parametrize("number", [1, 3, EPOCH, EPOCH + 2, 3 * EPOCH])
def test_killed_inside_an_epoch(photos, whole, tmp_path, number):
    assert faults.outcome(faults.session, photos, tmp_path / "run", faults.die_at_batch, number) == KILLED
    assert ends_as(whole, photos, tmp_path / "run")


@pytest.mark.parametrize("number", range(1, 5))
def test_killed_inside_a_checkpoints_write(photos, whole, tmp_path, number):
    assert faults.outcome(faults.session, photos, tmp_path / "run", faults.die_in_checkpoint, number) == KILLED
    assert list((tmp_path / "run").glob(".*.part"))
    assert ends_as(whole, photos, tmp_path / "run")


def test_killed_between_a_files_writing_and_its_move(photos, whole, tmp_path):
    for number in range(1, 100):
        run_dir = tmp_path / f"run{number}"
        if faults.outcome(faults.session, photos, run_dir, faults.die_before_move, number) == 0:
            break
        assert ends_as(whole, photos, run_dir)
    assert number > 10  # run.json twice, metrics.csv and last.pt each epoch, their predecessors, predictions.csv


@pytest.mark.parametrize(
    ("fault", "number"),
    [(faults.die_in_cache, 1), (faults.die_in_cache, 24), (faults.die_before_move, 1)],
)
def test_killed_inside_the_cache_build(photos, tmp_path, monkeypatch, fault, number):
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    assert faults.outcome(faults.decode, copy, fault, number) == KILLED
    assert not list((tmp_path / "cache").glob("[!.]*"))
    assert faults.outcome(faults.decode, copy) == 0
    assert not list((tmp_path / "cache").glob(".*.building"))
    monkeypatch.setenv("FLOWERLIB_CACHE", str(tmp_path / "cache"))
    decoded = load_photos(str(copy))
    assert all(
        np.array_equal(decoded.read(index), np.asarray(Image.open(copy / path)))
        for index, path in enumerate(decoded.paths)
    )


def run_until(said, arguments, action):
    """Start the command line in a process group of its own, act when it has said something, return its words."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flowerlib", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if said in line:
            action(process)
            break
    _, errors = process.communicate()
    return process.returncode, errors


def arguments_for(photos, runs):
    # some seconds of epochs, so that a session doesn't end before a signal comes
    settings = faults.TINY.changes() | {"epochs": 12, "lr_step": 10}
    settings = [f"--set={key}={value}" for key, value in settings.items() if key != "weights"]
    return ["resnet18-bs32", "--data", str(photos), "--weights", "none", "--runs", str(runs), *settings]


@pytest.fixture(scope="module")
def whole_by_notebook(photos):
    """The folder of a session that the command line ran, and nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERLIB_CACHE", str(photos.parent / "cache"))
        assert main(["run", *arguments_for(photos, photos.parent / "runs")]) == 0
    return photos.parent / "runs" / "photos" / "resnet18-bs32"


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(lambda process: os.killpg(process.pid, signal.SIGKILL), id="all"),
        pytest.param(lambda process: process.kill(), id="parent"),  # the notebook's process lives on for a moment
    ],
)
def test_killed_inside_a_notebooks_execution(photos, whole_by_notebook, tmp_path, monkeypatch, kill):
    monkeypatch.setenv("FLOWERLIB_CACHE", str(photos.parent / "cache"))
    arguments = arguments_for(photos, tmp_path)
    status, _ = run_until("epoch  0", arguments, kill)
    assert status == KILLED
    run_dir = tmp_path / "photos" / "resnet18-bs32"
    assert not read_info(run_dir).finished
    assert main(["run", *arguments]) == 0
    assert same(contents(run_dir), contents(whole_by_notebook))


@pytest.mark.parametrize(("sent", "exit_status", "word"), [
    (signal.SIGINT, 130, "Interrupted"),
    (signal.SIGTERM, 143, "Terminated"),
])  # fmt: skip
def test_an_interrupt_says_where_it_stopped_and_how_to_go_on(photos, tmp_path, monkeypatch, sent, exit_status, word):
    monkeypatch.setenv("FLOWERLIB_CACHE", str(photos.parent / "cache"))
    arguments = [*arguments_for(photos, tmp_path), "--set=epochs=5000"]  # that it doesn't end before the signal comes
    status, errors = run_until("epoch  1", arguments, lambda process: os.killpg(process.pid, sent))
    run_dir = tmp_path / "photos" / "resnet18-bs32"
    epochs = len(pd.read_csv(run_dir / "metrics.csv"))
    assert status == exit_status
    assert epochs >= 2
    assert word in errors
    assert f"resnet18-bs32: stopped after {epochs} of 5000 epochs" in errors
    assert "the same command, without --force, resumes" in errors
    assert "Traceback" not in errors
    assert not read_info(run_dir).finished


def test_a_full_disk_leaves_the_last_good_state(photos, whole, tmp_path):
    run_dir = tmp_path / "run"
    assert faults.outcome(faults.session, photos, run_dir, faults.die_at_batch, EPOCH + 2) == KILLED
    before = (run_dir / "last.pt").read_bytes()
    assert faults.outcome(faults.session, photos, run_dir, faults.fill_disk, 1_000_000) == 1
    said = (tmp_path / "said.txt").read_text()
    assert "could not be written (File too large); what stood there before is untouched" in said
    assert (run_dir / "last.pt").read_bytes() == before
    assert ends_as(whole, photos, run_dir)


def test_a_full_disk_while_decoding(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    run_dir = tmp_path / "run"
    assert faults.outcome(faults.session, tmp_path / "photos", run_dir, faults.fill_disk, 100_000) == 1
    assert "decoded photos could not be written" in (tmp_path / "said.txt").read_text()
    assert not list((tmp_path / "cache").glob("[!.]*"))
    assert not list((tmp_path / "cache").glob(".*.building"))


def test_space_for_all_sessions_is_checked_before_the_first(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FLOWERLIB_CACHE", str(photos.parent / "cache"))
    experiments = tmp_path / "experiments.yaml"
    experiments.write_text("one:\ntwo:\n  model: resnet34\n")
    arguments = [each for each in arguments_for(photos, tmp_path / "runs")[1:] if "model" not in each]
    arguments += ["--experiments", str(experiments)]
    free = shutil.disk_usage(tmp_path)._replace(free=500_000_000)  # ResNet-18 takes 0.32 GB, ResNet-34 0.60
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: free)
    assert main(["run", *arguments]) == 1
    assert "has 0.50 GB free, and 0.91 GB may be needed" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("run.json"))
    with pytest.raises(UserError, match=r"0\.30 GB free"):
        free = free._replace(free=300_000_000)
        train_and_evaluate(
            faults.TINY.model_copy(update={"model": "resnet18"}), load_photos(str(photos)), tmp_path / "run"
        )


def test_a_folder_without_the_right_to_write():
    # not in pytest's folder, which nobody but its owner may enter
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "file.txt").write_text("old")
        folder.chmod(0o555)
        assert faults.outcome(faults.write, folder / "file.txt") == 0
        assert [path.name for path in folder.iterdir()] == ["file.txt"]
        assert (folder / "file.txt").read_text() == "old"
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_second_process_is_refused(photos, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FLOWERLIB_CACHE", str(photos.parent / "cache"))
    monkeypatch.setattr(files, "PATIENCE", 0)
    folder = tmp_path / "runs" / "photos" / "resnet18-bs32"
    shutil.copytree(whole, folder)
    before = {path: path.read_bytes() for path in folder.glob("[!.]*")}
    with (
        locked(folder / ".lock", folder),
        pytest.raises(UserError, match="Another process is at work"),
    ):
        train_and_evaluate(faults.TINY, load_photos(str(photos)), folder)
    arguments = ["run", *arguments_for(photos, tmp_path / "runs"), "--force"]
    for lock in (folder / ".lock", folder.with_name(".resnet18-bs32.lock")):
        with locked(lock, folder):
            assert main(arguments) == 1
        assert "Another process is at work" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in folder.glob("[!.]*")} == before


@pytest.mark.parametrize("spoil", ["empty", "half", "flipped", "text", "missing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(photos, whole, tmp_path, spoil):
    run_dir = tmp_path / "run"
    assert faults.outcome(faults.session, photos, run_dir, faults.die_at_batch, 2 * EPOCH + 2) == KILLED
    last = run_dir / "last.pt"
    content = last.read_bytes()
    middle = len(content) // 2
    damaged = {
        "empty": b"",
        "half": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "text": b"not a checkpoint",
    }
    last.unlink()
    if spoil in damaged:
        last.write_bytes(damaged[spoil])
    assert ends_as(whole, photos, run_dir)
    said = (tmp_path / "said.txt").read_text()
    assert "Resuming after epoch 0" in said
    assert (f"{last} can't be read" in said) == (spoil in damaged)


def test_a_loss_that_is_not_finite_ends_the_session(photos, whole, tmp_path):
    run_dir = tmp_path / "run"
    assert faults.outcome(faults.session, photos, run_dir, faults.spoil_batch, EPOCH + 2) == 1
    said = (tmp_path / "said.txt").read_text()
    assert "in epoch 1: the loss of batch 2 of 3 is nan, at learning rate 0.001" in said
    assert len(torch.load(run_dir / "last.pt", weights_only=True)["history"]) == 1
    assert len(pd.read_csv(run_dir / "metrics.csv")) == 1
    assert ends_as(whole, photos, run_dir)
    # a step may also spoil the weights after the last loss was taken
    assert faults.outcome(faults.session, photos, tmp_path / "other", faults.spoil_batch, 4) == 1
    assert "in epoch 0: the validation loss is nan" in (tmp_path / "said.txt").read_text()


def test_run_json_says_where_earlier_epochs_were_computed(photos, tmp_path):
    run_dir = tmp_path / "run"
    assert faults.outcome(faults.session, photos, run_dir, faults.die_at_batch, 2 * EPOCH + 2) == KILLED
    here = read_info(run_dir).device
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERLIB_CACHE", str(photos.parent / "cache"))
        threads = torch.get_num_threads()
        torch.set_num_threads(here.threads + 1)
        try:
            run = train_and_evaluate(faults.TINY, load_photos(str(photos)), run_dir)
        finally:
            torch.set_num_threads(threads)
    assert run.info.device.threads == here.threads + 1
    (earlier,) = run.info.earlier
    assert (earlier.epochs, earlier.device) == (2, here)
