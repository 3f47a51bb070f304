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
from papermill.exceptions import PapermillExecutionError

from flowerlib.checkpoint import describe_differences
from flowerlib.dataset import load_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.files import NOTEBOOKS, make_folder, write_text
from flowerlib.metrics import read_info
from flowerlib.model import load_weights
from flowerlib.progress import PROGRESS_VARIABLE
from flowerlib.provenance import pick_device

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
    names = {experiment.data: load_photos(experiment.data).name for experiment in experiments.values()}
    folders = {name: runs / names[experiment.data] / name for name, experiment in experiments.items()}
    waiting = [name for name, folder in folders.items() if force or not _finished(folder, experiments[name])]
    for source, model in {(experiments[name].weights, experiments[name].model) for name in waiting}:
        load_weights(source, model)
    for name in waiting:
        pick_device(experiments[name].device)
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
        log: gets all that the cells print, and the traceback of an error.
        echo: gets what the cells print, as they print it.

    Raises:
        UserError: a parameter is unknown, or a cell fails; the message is the cell's error.
    """
    unknown = parameters.keys() - papermill.inspect_notebook(notebook).keys()
    if unknown:
        raise UserError(f"The notebook {notebook} has no parameter {', '.join(sorted(unknown))}.")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        with log.open("w", encoding="utf-8") as file:
            papermill.execute_notebook(
                notebook,
                output,
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                extra_arguments=["--log-level=ERROR"],  # the kernel's own warnings are no user's business
                stdout_file=_Tee(file, echo),
                stderr_file=_Tee(None, sys.stderr) if echo else file,
            )
    except PapermillExecutionError as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        with log.open("a", encoding="utf-8") as file:
            file.write(plain + "\n")
        reason = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
        raise UserError(f"{reason}\nThe notebook up to the error: {output}; what it printed: {log}.") from error
    finally:
        _drop_progress(output)


def _finished(folder: Path, experiment: Experiment) -> bool:
    """Whether a session is done; refuses a folder that holds a run of other settings."""
    info = read_info(folder)
    if info is None:
        return False
    before, now = info["settings"], experiment.settings()
    if differences := describe_differences(before, now):
        raise UserError(
            f"{folder} holds a run of other settings ({differences}). Nothing was run. "
            "Use --force to replace it, or --runs FOLDER to keep both."
        )
    return bool(info.get("finished"))


def _run_session(name: str, experiment: Experiment, folder: Path, force: bool) -> bool:
    if force:
        shutil.rmtree(folder)
        make_folder(folder)
    print(f"{name}: {folder}", flush=True)
    parameters = {"session": name, "run_dir": str(folder), **experiment.changes()}
    os.environ[PROGRESS_VARIABLE] = "terminal" if sys.stderr.isatty() else "none"
    try:
        execute_notebook(
            SESSION_NOTEBOOK, folder / "session.ipynb", parameters, log=folder / "session.log", echo=sys.stdout
        )
    except UserError as error:
        print(f"{name}: failed. {error}", file=sys.stderr, flush=True)
        return False
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
    """Take the terminal's progress bars (text with carriage returns) out of an executed notebook."""
    if not output.exists():
        return
    notebook = nbformat.read(output, as_version=4)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr" or "\r" not in each.text]
    write_text(output, nbformat.writes(notebook))
