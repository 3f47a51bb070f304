"""Executing a notebook through papermill, with errors in words."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from flowerlib.errors import UserError, brief
from flowerlib.files import write_text


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
        _drop_progress(output)
        reason = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
        raise UserError(f"{reason}\nThe notebook up to the error: {output}; what it printed: {log}.") from error
    except OSError as error:
        raise UserError(
            f"{output} or {log} could not be written ({brief(error)}). Free some space or choose another folder; the "
            "same command goes on after the last whole epoch."
        ) from error
    _drop_progress(output)


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
