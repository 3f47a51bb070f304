"""Running the session notebook for each entry of experiments.yaml, through papermill."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from flowerlib.dataset import PhotoSet, load_photos, split
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.files import NOTEBOOKS, make_folder, write_text
from flowerlib.metrics import read_info
from flowerlib.model import check_model, load_weights
from flowerlib.progress import PROGRESS_VARIABLE
from flowerlib.provenance import describe_differences, describe_run, inputs, pick_device, pick_precision

SESSION_NOTEBOOK = NOTEBOOKS / "session.ipynb"


def run_sessions(experiments: Mapping[str, Experiment], runs: Path, *, force: bool = False) -> list[str]:
    """Run each session that is not finished, one after the other; go on after one that fails.

    Args:
        experiments: settings by session name.
        runs: the folder of runs; a session's own is ``runs/<dataset>/<session>``.
        force: begin again, also where a session is finished or unfinished.

    Returns:
        Names of the sessions that failed.

    Raises:
        UserError: something that is known before training: photos, weights, device or folder can't be used,
            or a session's folder holds a run of other settings.
    """
    photos = {source: load_photos(source) for source in {each.data for each in experiments.values()}}
    folders = {name: runs / photos[each.data].name / name for name, each in experiments.items()}
    infos = {name: _plan(each, photos[each.data]) for name, each in experiments.items()}
    waiting = [name for name in experiments if force or not _finished(folders[name], infos[name])]
    for name in waiting:
        make_folder(folders[name])

    failed = []
    for name, experiment in experiments.items():
        if name not in waiting:
            print(f"{name}: finished before, in {folders[name]}")
        elif not _run_session(name, experiment, folders[name], force):
            failed.append(name)
    return failed


def execute_notebook(
    notebook: Path, output: Path, parameters: Mapping[str, Any], *, log: Path, echo: TextIO | None = None
) -> None:
    """Execute a notebook with papermill, in this Python.

    Args:
        notebook: what to execute.
        output: the executed copy; it is there, with the error in it, also when a cell fails.
        parameters: values for the notebook's parameters.
        log: what the cells print is added to it, and the traceback of an error.
        echo: gets what the cells print, as they print it; progress bars go to the terminal alone.

    Raises:
        UserError: a parameter is unknown, or a cell fails; the message is the cell's error.
    """
    unknown = parameters.keys() - papermill.inspect_notebook(notebook).keys()
    if unknown:
        raise UserError(f"The notebook {notebook} has no parameter {', '.join(sorted(unknown))}.")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        with log.open("a", encoding="utf-8") as file:
            papermill.execute_notebook(
                notebook,
                output,
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                extra_arguments=["--log-level=CRITICAL"],  # the kernel's own warnings are no user's business
                stdout_file=_Tee(file, echo),
                stderr_file=_Tee(None, sys.stderr) if echo else file,
            )
    except DeadKernelError as error:
        raise UserError(
            "The notebook's process was ended from outside, often for want of memory: take a smaller batch_size, or "
            f"close other programs. The same command goes on after the last whole epoch. Log: {log}."
        ) from error
    except PapermillExecutionError as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        with log.open("a", encoding="utf-8") as file:
            file.write(plain + "\n")
        reason = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
        raise UserError(f"{reason}\nThe notebook up to the error: {output}; what it printed: {log}.") from error
    finally:
        _drop_progress(output)


def _plan(experiment: Experiment, photos: PhotoSet) -> dict[str, Any]:
    """The run.json that a session would begin with; whatever can be known to fail fails here."""
    device = pick_device(experiment.device)
    weights = load_weights(experiment.weights, experiment.model)
    check_model(experiment, len(photos.classes), weights)
    parts = split(photos, experiment.split_seed)
    return describe_run(experiment, photos, parts, weights, device, pick_precision(experiment.precision, device))


def _finished(folder: Path, planned: dict[str, Any]) -> bool:
    """Whether a session is done; refuses a folder that holds a run of other inputs."""
    info = read_info(folder)
    if info is None:
        return False
    if differences := describe_differences(inputs(info), inputs(planned)):
        raise UserError(
            f"{folder} holds a run of other inputs ({differences}). Nothing was run. "
            "Use --force to replace it, or --runs FOLDER to keep both."
        )
    return bool(info.get("finished"))


def _run_session(name: str, experiment: Experiment, folder: Path, force: bool) -> bool:
    """Run one session; with ``force`` what was there before is kept until the new run has succeeded."""
    before = folder.with_name(f".{name}.before")
    if force:
        shutil.rmtree(before, ignore_errors=True)
        folder.rename(before)
        make_folder(folder)
    print(f"{name}: {folder}", flush=True)
    parameters = {"session": name, "run_dir": str(folder), **experiment.changes()}
    os.environ[PROGRESS_VARIABLE] = "terminal" if sys.stderr.isatty() else "none"
    log = folder / "session.log"
    try:
        execute_notebook(SESSION_NOTEBOOK, folder / "session.ipynb", parameters, log=log, echo=sys.stdout)
    except UserError as error:
        kept = f" The run that was there before is in {before}." if force else ""
        print(f"{name}: failed. {error}{kept}", file=sys.stderr, flush=True)
        return False
    if force:
        shutil.rmtree(before)
    return True


class _Tee:
    """A text file that passes everything on to two, either of which may be None."""

    def __init__(self, *files: TextIO | None):
        self._files = [file for file in files if file is not None]

    def write(self, text: str) -> None:
        for file in self._files:
            file.write(text)

    def flush(self) -> None:
        for file in self._files:
            file.flush()


def _drop_progress(output: Path) -> None:
    """Take the terminal's progress bars out of an executed notebook: what a carriage return overwrote."""
    if not output.exists():
        return
    notebook = nbformat.read(output, as_version=4)
    for cell in notebook.cells:
        for each in cell.get("outputs", []):
            if each.get("name") == "stderr":
                each.text = re.sub(r"[^\n]*\r", "", each.text)
        if "outputs" in cell:
            cell.outputs = [each for each in cell.outputs if each.get("text", "-").strip()]
    write_text(output, nbformat.writes(notebook))
