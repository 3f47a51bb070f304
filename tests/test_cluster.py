"""Sessions at the same time: on a Dask cluster of two workers, and on this machine's cores."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import dask
import faults
import psutil
import pytest
import torch
from distributed import Client, Event, LocalCluster
from test_faults import contents, same

from flowerlib import cluster
from flowerlib.cli import main
from flowerlib.data.photos import load_photos
from flowerlib.data.synthetic import write_synthetic
from flowerlib.errors import UserError
from flowerlib.files import locked
from flowerlib.runs import read_info
from flowerlib.sessions import run_sessions
from flowerlib.training.loop import train_and_evaluate

TINY = faults.TINY.model_copy(update={"epochs": 8, "lr_step": 6})
SEEDS = range(6)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster") / "photos"
    write_synthetic(folder, photos_per_class=5)
    return folder


@pytest.fixture(autouse=True)
def _shared_cache(photos, monkeypatch):
    monkeypatch.setenv("FLOWERLIB_CACHE", str(photos.parent / "cache"))


@contextmanager
def scheduler(workers):
    with dask.config.set(cluster.SCHEDULER), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with LocalCluster(
            n_workers=workers, threads_per_worker=1, memory_limit=None, dashboard_address="127.0.0.1:0"
        ) as running:
            yield running


@pytest.fixture(scope="module")
def two_workers():
    with scheduler(2) as running:
        yield running


@pytest.fixture
def arguments(photos, tmp_path):
    (tmp_path / "experiments.yaml").write_text("s:\n")
    settings = TINY.changes() | {"data": photos, "seeds": list(SEEDS)}
    folders = ["--experiments", str(tmp_path / "experiments.yaml"), "--runs", str(tmp_path / "runs")]
    return ["run", *folders, *(f"--set={key}={value}" for key, value in settings.items())]


def command(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "flowerlib", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(said, process):
    """The line of a command's output that says it."""
    return next(line for line in process.stdout if said in line)


def worker_of(line, running):
    """The process of the worker whose session has printed a line."""
    with Client(running) as client:
        (address,) = (
            each
            for each, keys in client.processing().items()
            if any(key.endswith(line.split(":")[0]) for key in keys)
        )
    (nanny,) = (each for each in running.workers.values() if each.worker_address == address)
    return psutil.Process(nanny.pid)


def test_a_sweep_ends_as_its_sequence_whatever_dies_on_the_way(two_workers, photos, tmp_path, arguments):
    arguments = [*arguments, "--cluster", two_workers.scheduler_address]
    first = command(arguments)
    interrupted = read_until("epoch  2", first)
    worker_of(interrupted, two_workers).kill()
    out_of_memory = read_until("epoch  4", first)
    for notebook in worker_of(out_of_memory, two_workers).children():
        notebook.kill()
    os.killpg(first.pid, signal.SIGINT)
    assert "continues on the cluster, after" in first.communicate()[0]
    assert first.returncode == 130

    second = command(arguments)
    assert main(arguments) == 0
    assert second.communicate()[0].count("already finished") < len(SEEDS)
    assert second.returncode == 0

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for seed in SEEDS:
            alone = TINY.model_copy(update={"seed": seed, "data": str(photos)})
            train_and_evaluate(alone, load_photos(str(photos)), tmp_path / f"s-seed{seed}")
    finally:
        torch.set_num_threads(threads)
    folders = [tmp_path / "runs" / "photos" / f"s-seed{seed}" for seed in SEEDS]
    for folder in folders:
        assert same(contents(folder), contents(tmp_path / folder.name)), folder
    logs = {folder.name: (folder / "session.log").read_text() for folder in folders}
    for name in {line.split(":")[0] for line in (interrupted, out_of_memory)}:
        # a session may have ended in the moment before its worker was killed
        assert "Resuming after epoch" in logs[name] or "Nothing to train" in logs[name]
    assert all(log.count("epoch  7 of 8") <= 1 for log in logs.values())  # a killed process may not get to print it


def dies_at_seed_0(plan, *_):
    """In the place of a session; seed 1 keeps the other worker busy meanwhile."""
    with (plan.folder / "tried").open("a") as file:
        file.write(".")
        tries = file.tell()
    third_try = Event("third try")
    if plan.experiment.seed == 0:
        if tries == 3:
            third_try.set()
        os._exit(1)
    if plan.experiment.seed == 1:
        third_try.wait(timeout=60)


def test_a_session_that_kills_its_workers_is_given_up_and_the_others_go_on(
    two_workers, tmp_path, arguments, monkeypatch, capsys
):
    monkeypatch.setattr(cluster, "_work", dies_at_seed_0)
    monkeypatch.setattr(cluster, "is_up_to_date", lambda folder, experiment: True)
    few = "--set=seeds=[0, 1, 2, 3]"  # Dask keeps back what is more than twice its workers, without being asked
    assert main([*arguments, few, "--cluster", two_workers.scheduler_address]) == 1
    said = capsys.readouterr().err
    assert "s-seed0: failed. Given up: 3 workers died with it" in said
    assert "1 of 4 sessions failed: s-seed0" in said
    tried = {path.parent.name: len(path.read_text()) for path in (tmp_path / "runs").rglob("tried")}
    assert tried.keys() == {f"s-seed{seed}" for seed in range(4)}
    assert tried["s-seed0"] == 3


def does_nothing(*_):
    """In the place of a session that another command, with other settings, has asked for before."""


def test_what_another_command_has_asked_for_is_not_taken_for_this_ones(two_workers, arguments, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "_work", does_nothing)
    assert main([*arguments, "--set=seeds=[7]", "--cluster", two_workers.scheduler_address]) == 1
    assert "s-seed7: failed. Another command ran this session" in capsys.readouterr().err


def test_a_worker_without_the_photos_is_said(two_workers, photos, tmp_path):
    elsewhere = photos.with_name("elsewhere")

    def photos_that_only_the_command_sees(plans, force):
        photos.rename(elsewhere)
        try:
            return cluster.run_there(two_workers.scheduler_address, plans, force)
        finally:
            elsewhere.rename(photos)

    experiment = TINY.model_copy(update={"data": str(photos)})
    with pytest.raises(UserError, match=rf"The worker tcp://\S+ lacks the photos \({photos}\)"):
        run_sessions({"s": experiment}, tmp_path / "runs", executor=photos_that_only_the_command_sees)
    assert not list((tmp_path / "runs").rglob("session.log"))


def test_a_worker_of_two_threads_is_refused(arguments, capsys):
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as running:
        assert main([*arguments, "--cluster", running.scheduler_address]) == 1
    assert "runs 2 tasks at once. Start it with --nthreads 1" in capsys.readouterr().err


def test_no_scheduler_is_said(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    assert main([*arguments, "--cluster", "tcp://127.0.0.1:1"]) == 1
    assert "No Dask scheduler answers at tcp://127.0.0.1:1" in capsys.readouterr().err
    assert main([*arguments, "--cluster", str(tmp_path / "scheduler.json")]) == 1
    assert "There is no scheduler file" in capsys.readouterr().err


def test_a_scheduler_that_goes_away_is_said(arguments):
    with scheduler(0) as running:
        process = command([*arguments, "--cluster", running.scheduler_address])
        read_until("the sessions wait for one", process)
    said = process.communicate()[0]
    assert process.returncode == 1
    assert "error: The scheduler has gone" in said
    assert "Traceback" not in said


def test_jobs_share_the_cores_and_end_with_the_command(tmp_path, arguments, monkeypatch, capsys):
    shown = []

    def end_at_once(name, event):
        if "epoch  2" in event[1] and name == "s-seed0" and not shown:
            os.kill(os.getpid(), signal.SIGTERM)
            shown.append(name)

    monkeypatch.setattr(cluster, "_show", end_at_once)
    monkeypatch.setattr(cluster, "usable_cores", lambda: 5)
    assert main([*arguments, "--set=seeds=[0, 1]", "--set=epochs=5000", "--jobs", "2"]) == 143
    assert "s-seed0: stopped after" in capsys.readouterr().err
    folder = tmp_path / "runs" / "photos" / "s-seed0"
    with locked(folder / ".lock", folder):  # no notebook is left
        assert read_info(folder).device.threads == 2


def test_each_session_has_a_gpu_of_those_that_may_be_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cluster._gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert cluster._gpus() == ["3", "5", "7"]
