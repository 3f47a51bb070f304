"""How the report is made: from the finished sessions, through report.ipynb, to the PDF."""

from __future__ import annotations

from pathlib import Path

from flowerlib.errors import UserError
from flowerlib.files import NOTEBOOKS, locked, make_folder
from flowerlib.notebooks import execute_notebook
from flowerlib.report.pdf import build_report
from flowerlib.runs import no_session, read_info

REPORT_NOTEBOOK = NOTEBOOKS / "report.ipynb"


def make_report(runs: Path, out: Path, engine: str, gallery: bool = True) -> Path:
    """Execute report.ipynb on the runs and print it.

    Args:
        runs: a folder of sessions, or a folder of data sets of which one has sessions.
        out: gets report.pdf, report.tex, report.ipynb (executed), figures/ and tables/.
        engine: ``auto``, ``tex`` or ``typst``.
        gallery: show photos, where they are at hand.

    Returns:
        Path of report.pdf.

    Raises:
        UserError: there are no finished sessions, or the notebook or the PDF fails.
    """
    folder = find_sessions(runs)
    executed = make_folder(out) / "report.ipynb"
    with locked(out / ".lock", out):
        execute_notebook(REPORT_NOTEBOOK, executed, {"runs": str(folder), "gallery": gallery}, log=out / "report.log")
        return build_report(executed, out, engine)


def find_sessions(runs: Path) -> Path:
    """The folder of sessions meant by ``runs``: itself, or the only one in it, at most two levels down.

    Where there are several, it is the data set ``flowers``; what is taken and what is left out is printed.
    """
    if (runs / "run.json").exists():
        raise UserError(f"{runs} is one session. Name the folder that holds it: --runs {runs.parent}")
    levels = ([*runs.glob(f"{folders}[!.]*/run.json")] for folders in ("", "*/", "*/*/"))
    paths = next(filter(None, levels), [])
    found = {path.parent: info for path in paths if (info := read_info(path.parent))}
    folders = sorted({folder.parent for folder, info in found.items() if info.finished})
    chosen = [folder for folder in folders if folder.name == "flowers"] if len(folders) > 1 else folders
    if not folders:
        raise no_session(runs)
    if not chosen:
        raise UserError(f"Choose one with --runs: {', '.join(map(str, folders))}.")
    print(f"report of {chosen[0]}")
    for folder in folders:
        if folder != chosen[0]:
            print(f"not in it: {folder}; choose it with --runs")
    for folder, info in found.items():
        if folder.parent == chosen[0] and not info.finished:
            print(f"not in it, not finished: {folder.name}")
    return chosen[0]
