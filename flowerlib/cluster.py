"""Sessions at the same time: on this machine's cores and GPUs, or on the workers of a Dask cluster.

Dask hands the sessions out, and hands one out again when its worker dies. The session does the rest: it goes on after
its last whole epoch, and is alone in its folder.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path

import torch

from flowerlib.data.photos import locate
from flowerlib.data.threads import usable_cores
from flowerlib.errors import UserError, one_line
from flowerlib.files import PROJECT, user_path
from flowerlib.notebooks import NotebookEnded
from flowerlib.progress import PROGRESS_VARIABLE
from flowerlib.runs import is_up_to_date
from flowerlib.sessions import Plan, progress_of, run_session, say_failed
from flowerlib.training.weights_file import weights_file

try:
    import dask
    import distributed
    from dask._task_spec import Task
    from distributed import Client, Future, KilledWorker, LocalCluster, Worker, WorkerPlugin
except ImportError as error:
    raise UserError(
        f"Sessions at the same time need Dask, which is not installed ({one_line(error)}). Install it with "
        ".venv/bin/pip install -c requirements.lock -e '.[cluster]'. Or leave --jobs and --cluster out."
    ) from error

CONNECT_SECONDS = 10
OURS = ("FLOWERLIB_DATA", "FLOWERLIB_WEIGHTS", "FLOWERLIB_CACHE")

# A session is given up when its third worker dies. One that waits for a worker must not be blamed for its death: it
# waits at the scheduler, which gives a worker no more than it can run.
SCHEDULER = {"distributed.scheduler.allowed-failures": 2, "distributed.scheduler.worker-saturation": 1.0}


def run_here(jobs: int, plans: Sequence[Plan], force: bool) -> list[str]:
    """Run ``jobs`` sessions at once on this machine, each with its share of the cores; returns those that failed.

    Where there are several GPUs, each has one of them. When the command ends, all of its sessions do.
    """
    jobs = min(jobs, len(plans))
    environment = {"OMP_NUM_THREADS": str(max(1, usable_cores() // jobs))}
    try:
        with (
            dask.config.set(SCHEDULER),
            LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                memory_limit=None,  # a session's memory is that of its notebook's process
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                security=True,  # without, others on this machine could have its workers run their code
            ) as cluster,
            Client(cluster) as client,
        ):
            return _hand_out(client, plans, force, environment, _gpus())
    except KeyboardInterrupt:
        _say_where_they_stand(plans, "stopped")
        raise


def run_there(address: str, plans: Sequence[Plan], force: bool) -> list[str]:
    """Run sessions on the workers of a running Dask scheduler; returns the names of those that failed.

    They go on when the command ends. The same command finds those that run by their folders, and waits for them.

    Args:
        address: ``tcp://host:8786``, or the path of a scheduler file.
        plans: the sessions.
        force: begin again; a session whose worker dies then begins again as well.

    Raises:
        UserError: there is no scheduler, a worker lacks something, or the scheduler has gone.
    """
    for name in ("distributed", "distributed.client"):  # what matters of their logs is said here, in words
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _connect(address) as client:
        environment = {name: os.environ[name] for name in OURS if name in os.environ}
        try:
            return _hand_out(client, plans, force, environment)
        except KeyboardInterrupt:
            _say_where_they_stand(plans, "continues on the cluster,")
            raise


def _connect(address: str) -> Client:
    file = None if "://" in address else user_path(address)
    if file and not file.exists():
        raise UserError(
            f"There is no scheduler file {file}. Start a scheduler with '.venv/bin/dask scheduler --scheduler-file "
            f"{file}', or give its address, such as tcp://host:8786."
        )
    try:
        return Client(None if file else address, scheduler_file=file and str(file), timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise UserError(
            f"No Dask scheduler answers at {address} ({one_line(error)}). Start one with '.venv/bin/dask scheduler', "
            "and its workers; docs/clusters.md shows how."
        ) from error


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _hand_out(
    client: Client, plans: Sequence[Plan], force: bool, environment: Mapping[str, str], gpus: Sequence[str] = ()
) -> list[str]:
    needs = {plan.name: _needs(plan) for plan in plans}
    workers = client.run(_first_problem, list(needs.values()), on_error="return")
    if problems := [_in_words(address, problem) for address, problem in workers.items() if problem]:
        raise UserError(" ".join(problems))
    if not workers:
        print("The scheduler has no worker yet: the sessions wait for one.", flush=True)
    futures = {}
    for plan in plans:
        client.subscribe_topic(str(plan.folder), partial(_show, plan.name))
        arguments = plan, force, needs[plan.name], dict(environment), list(gpus)
        futures[_submit(client, str(plan.folder), arguments)] = plan
    done = ((future, futures[future]) for future in distributed.as_completed(futures))
    return [plan.name for future, plan in done if not _succeeded(future, plan)]


def _in_words(address: str, problem: str | Exception) -> str:
    if isinstance(problem, str):
        return problem
    return f"The worker {address} can't run sessions ({one_line(problem)}). Start it with the project's own dask."


def _submit(client: Client, key: str, arguments: tuple) -> Future:
    # marked as Dask marks tasks that read data: it keeps those back until a worker is free
    task = Task(key, _work, *arguments, _data_producer=True)
    future = client.get({key: task}, key, sync=False)
    distributed.fire_and_forget(future)
    return future


def _succeeded(future: Future, plan: Plan) -> bool:
    try:
        future.result()
        if not is_up_to_date(plan.folder, plan.experiment):  # another command has asked for the same folder before
            raise UserError("Another command ran this session with other settings. Run this command again.")
    except UserError as error:
        say_failed(plan, error)
    except KilledWorker as error:
        how = f"{error.allowed_failures + 1} workers died with it, the last was {error.last_worker.address}"
        log = plan.folder / "session.log"
        say_failed(
            plan,
            UserError(f"Given up: {how}. A common cause is too little memory. Log: {log}. The same command resumes."),
        )
    except CancelledError as error:
        raise UserError(
            "The scheduler has gone, or was told to drop the sessions. Their epochs are kept: once a scheduler runs, "
            "the same command resumes."
        ) from error
    except Exception as error:  # Dask's, where a worker or the scheduler can't read what it is sent
        foreign = f"{type(error).__name__}: {one_line(error)}"
        say_failed(plan, UserError(f"{foreign}. Were scheduler and workers started with the project's own dask?"))
    else:
        return True
    finally:
        future.release()  # a result that Dask keeps is computed again when its worker dies
    return False


def _show(name: str, event: tuple[float, str]) -> None:
    print(f"{name}: {event[1]}", flush=True)


def _say_where_they_stand(plans: Sequence[Plan], how: str) -> None:
    print("", *(f"{plan.name}: {how} {progress_of(plan)}" for plan in plans), sep="\n", file=sys.stderr)


# ---- on a worker


def _needs(plan: Plan) -> dict[str, Path]:
    """What a worker must see on the file system that it shares with the command."""
    experiment = plan.experiment
    needs = {
        "the project": PROJECT,
        "the command's folder": Path.cwd(),
        "the session's folder": plan.folder,
        "the photos": locate(experiment.data)[1],
    }
    if weights := weights_file(experiment.weights, experiment.model):
        needs["the weights"] = weights
    if experiment.exclude:
        needs["the list of photos to exclude"] = user_path(experiment.exclude)
    return needs


def _first_problem(needs: Sequence[Mapping[str, Path]], dask_worker: Worker) -> str | None:
    """Why a worker can't run one of the sessions, if it can't."""
    return next(filter(None, (_problem(each, dask_worker) for each in needs)), None)


def _problem(needs: Mapping[str, Path], dask_worker: Worker) -> str | None:
    """Why a worker can't run a session, if it can't."""
    lacking = [f"{what} ({path})" for what, path in needs.items() if not path.exists()]
    worker = f"The worker {dask_worker.address}"
    if dask_worker.state.nthreads != 1:
        return f"{worker} runs {dask_worker.state.nthreads} tasks at once. Start it with --nthreads 1."
    if lacking:
        return f"{worker} lacks {', '.join(lacking)}. It must see them under the same path."
    if needs["the project"] != PROJECT:
        return f"{worker} runs the flowerlib of {PROJECT}. Start it with the dask of {needs['the project']}."
    return None


class _Lines:
    """A text file that passes whole lines on to the commands that wait for a session."""

    def __init__(self, worker: Worker, topic: str):
        self._worker, self._topic, self._begun = worker, topic, ""

    def write(self, text: str) -> None:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._worker.log_event(self._topic, line)

    def flush(self) -> None:
        """Nothing is held back but a line's beginning."""


class _EndAtOnce(WorkerPlugin):
    """Ends a worker that is told to close without waiting for its session: another may soon be given it."""

    def teardown(self, worker: Worker) -> None:
        os._exit(1)  # the notebook's process notices, and ends too


def _work(
    plan: Plan, force: bool, needs: Mapping[str, Path], environment: Mapping[str, str], gpus: Sequence[str]
) -> None:
    """Run a session on a worker, whose one thread this is."""
    worker = distributed.get_worker()
    if problem := _problem(needs, worker):
        raise UserError(problem)
    os.chdir(needs["the command's folder"])
    os.environ |= {**environment, PROGRESS_VARIABLE: "none"}
    if gpus:  # this machine's workers are numbered
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[worker.name % len(gpus)]
    threads = os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["MKL_NUM_THREADS"] = threads  # Dask sets it to 1, and PyTorch would take that
    echo = _Lines(worker, str(plan.folder))
    echo.write(f"on {worker.address}, CPU threads: {threads}\n")
    worker.plugins["session"] = _EndAtOnce()
    try:
        run_session(plan, force, echo)
    except NotebookEnded:  # as if the worker had died: Dask counts it, and hands the session out again
        os._exit(1)
    finally:
        worker.plugins.pop("session", None)
