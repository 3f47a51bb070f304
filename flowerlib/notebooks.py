"""Executing a notebook through papermill, with errors in words."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from flowerlib.allocator import ALLOCATOR_ENVIRONMENT
from flowerlib.errors import UserError, one_line
from flowerlib.files import write_text

LONGEST_SOCKET = 90  # characters; systems allow 104 to 108, and each channel adds its number
KERNEL_SECONDS = 120  # to start: importing from a network drive takes its time
KERNEL_OPTIONS = (
    "--log-level=CRITICAL",  # its own warnings are no user's business
    "--HistoryManager.enabled=False",
)


class NotebookEnded(UserError):
    """The notebook's process was ended from outside."""


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
        NotebookEnded: the notebook's process was ended from outside, often for lack of memory.
    """
    unknown = parameters.keys() - papermill.inspect_notebook(_unformatted(notebook)).keys()
    if unknown:
        raise UserError(f"The notebook {notebook} has no parameter {', '.join(sorted(unknown))}.")
    for name in ("papermill", "asyncio"):  # what they report is raised too; Ctrl-C leaves a task of theirs unfinished
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with log.open("a", encoding="utf-8") as file, TemporaryDirectory(prefix="flowerlib-") as folder:
            papermill.execute_notebook(
                _unformatted(notebook),
                _unformatted(output),
                dict(parameters),
                kernel_name="python3",
                kernel_manager_class=_kernel_of_this_python(Path(folder), log),
                start_timeout=KERNEL_SECONDS,
                progress_bar=False,
                stdout_file=_Tee(file, echo),
                stderr_file=sys.stderr if echo else file,
            )
    except DeadKernelError as error:
        raise NotebookEnded(
            "The notebook's process was ended from outside, often for lack of memory: close other programs or, for a "
            "session, choose a smaller batch_size. The same command, without --force, resumes where it stopped. "
            f"Log: {log}."
        ) from error
    except RuntimeError as error:  # jupyter_client's, before the first cell
        raise UserError(
            f"The notebook's Python process did not start ({one_line(error)}). The last line it wrote: "
            f"{one_line(_last_line(log))}. Fix that and run the same command again."
        ) from error
    except PapermillExecutionError as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        with log.open("a", encoding="utf-8") as file:
            file.write(plain + "\n")
        _drop_progress(output)
        reason = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
        raise UserError(f"{reason}\nThe notebook up to the error: {output}; what it printed: {log}.") from error
    except OSError as error:
        where = error.filename or f"{output} or {log}"
        raise UserError(
            f"{where} could not be written ({one_line(error)}). Free some space or choose another folder; the same "
            "command, without --force, resumes where it stopped."
        ) from error
    _drop_progress(output)


def _unformatted(path: Path) -> str:
    """A path that papermill leaves as it is: it fills braces in with the parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "none")


def _kernel_of_this_python(folder: Path, log: Path) -> type[AsyncKernelManager]:
    """A kernel that runs in this Python and takes nothing from the user's Jupyter, IPython and matplotlib settings.

    Args:
        folder: an empty, temporary one, for what the kernel keeps while it runs.
        log: gets what the process writes before and after it is a kernel.
    """
    environment = (
        os.environ
        | ALLOCATOR_ENVIRONMENT
        | {
            "IPYTHONDIR": str(folder),  # profiles and startup files; history
            "MATPLOTLIBRC": os.devnull,
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "PYTHONSTARTUP": "",
            "PYTHONWARNINGS": "",
            "PYTHONUTF8": "1",
        }
    )

    class ThisPython(AsyncKernelManager):
        kernel_spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", *KERNEL_OPTIONS],
            language="python",
            display_name="Python 3",
        )

        def __init__(self, **options):
            # its usual place is the home folder, which may be full
            super().__init__(**options, connection_file=str(folder / "kernel.json"), **_transport(folder))

        async def start_kernel(self, **options):
            with log.open("ab") as file:
                await super().start_kernel(**options, env=environment, stdout=file, stderr=file)

    return ThisPython


def _transport(folder: Path) -> dict[str, str]:
    """Sockets in ``folder``, where the system has them and the path is short enough: no network is needed then."""
    address = str(folder / "socket")
    return {"transport": "ipc", "ip": address} if os.name == "posix" and len(address) < LONGEST_SOCKET else {}


class _Tee:
    """A text file that passes everything on to others, of which any may be None."""

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
