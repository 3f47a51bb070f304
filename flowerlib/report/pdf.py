"""The report's PDF, from its executed notebook: by TeX where there is one, else by pandoc and Typst.

nbconvert writes ``report.tex`` by the template in ``report/template``; the figures and tables come out of the
cells' outputs (see `flowerlib.report.display`). Both engines set that same file, so that the two PDFs say the same.
Cells tagged ``hide`` vanish; those tagged ``abstract`` and ``keywords`` become these parts. Of a code cell
only LaTeX and Markdown outputs are printed: no code, no streams, no pictures that have no caption.
"""

from __future__ import annotations

import base64
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import nbconvert
import nbformat
import pypandoc
import typst
from nbformat import NotebookNode
from traitlets.config import Config

from flowerlib.errors import UserError
from flowerlib.files import REPORT, make_folder, replacing
from flowerlib.report.html import write_html

TEX_ENGINES = ("xelatex", "lualatex", "pdflatex")  # the first two know more than the Latin alphabet
TEX_OPTIONS = ("-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape")
TEX_SECONDS = 300
BEYOND_OUR_FONT = 0x530  # from here on, beyond Latin, Greek and Cyrillic, New Computer Modern has gaps
MATPLOTLIBS_FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")
TEXT_FONT = "STIXGeneral*.ttf"  # the figures' own; another one there has an empty box for every character
GENERATED = "% Written by flowerlib"  # the template's first line
PRINTED = ("text/latex", "text/markdown")
TABLE_FILES = {"tex": "tabular", "csv": "csv"}  # a file's suffix: the key of its content in the output's metadata


class TexFailed(Exception):
    """A TeX engine made no good PDF; ``log`` tells why at length."""

    def __init__(self, engine: str, reason: str, log: str):
        super().__init__(f"{engine}: {reason}")
        self.log = log


def build_report(notebook: Path, out: Path, engine: str = "auto") -> Path:
    """Make the PDF of an executed report notebook, and what a LaTeX document needs to hold its parts.

    ``out`` gets ``report.pdf``, ``report.html``, ``report.tex``, ``references.bib``, ``figures/*.pdf``,
    ``tables/*.tex`` and ``tables/*.csv``; report.tex compiles where it lies. What an earlier build left there
    and this one has not goes; other files stay. If anything fails, the earlier build stays as it was.

    Args:
        notebook: executed.
        out: made if it is not there.
        engine: ``tex``, ``typst``, or ``auto``: TeX if there is one and it succeeds, else Typst.

    Returns:
        The path of report.pdf.

    Raises:
        UserError: the notebook is not executed or cites what is not there; a table or figure can't
            be set; ``tex`` is asked for and there is none, or it fails.
    """
    make_folder(out)
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        build = Path(folder)
        _write_sources(_read(notebook), build)
        _check_references((build / "report.tex").read_text("utf-8"), (build / "references.bib").read_text("utf-8"))
        _typeset(build, out, engine)
        write_html(for_pandoc((build / "report.tex").read_text("utf-8"), build), build)
        _publish(build, out)
    return out / "report.pdf"


def _read(path: Path) -> NotebookNode:
    """Return the executed notebook with only what is to be printed."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as a notebook ({error}). Run the report again.") from error
    kept = [
        (number, cell) for number, cell in enumerate(notebook.cells, 1) if "hide" not in cell.metadata.get("tags", [])
    ]
    code = [(number, cell) for number, cell in kept if cell.cell_type == "code"]
    if code and not any(cell.get("execution_count") or cell.outputs for _, cell in code):
        raise UserError(f"{path} has not been executed, so it has no results to print: run it first.")
    for number, cell in code:
        cell.source = ""
        cell.outputs = [output for output in cell.outputs if _is_printed(output, number, path)]
    notebook.cells = [cell for _, cell in kept]
    return notebook


def _is_printed(output: NotebookNode, cell: int, path: Path) -> bool:
    """Tell whether the PDF shows ``output``; say so if it leaves out a picture."""
    if output.output_type == "error":
        raise UserError(f"Cell {cell} of {path} failed ({output.ename}: {output.evalue}): mend it and run again.")
    data = output.get("data", {})
    printed = any(kind in data for kind in PRINTED)
    if not printed and any(kind.startswith("image/") for kind in data):
        remedy = "make it a flowerlib.report.display.Figure, which has a caption"
        print(f"Cell {cell} of {path} shows a picture that the PDF leaves out: {remedy}.", file=sys.stderr)
    return printed


def _write_sources(notebook: NotebookNode, build: Path) -> None:
    """Write report.tex, references.bib, and the files of figures and tables."""
    for path, content in _float_files(notebook).items():
        (build / path).parent.mkdir(exist_ok=True)
        (build / path).write_bytes(content)
    shutil.copyfile(REPORT / "references.bib", build / "references.bib")
    (build / "fonts").mkdir()
    for font in MATPLOTLIBS_FONTS.glob(TEXT_FONT):
        shutil.copyfile(font, build / "fonts" / font.name)
    config = Config()
    config.TemplateExporter.extra_template_basedirs = [str(REPORT)]
    config.ExtractOutputPreprocessor.enabled = False
    exporter = nbconvert.LatexExporter(config=config, template_name="template")
    exporter.register_filter("convert_pandoc", _convert_pandoc)
    cites = r"\cite" in nbformat.writes(notebook)
    tex, _ = exporter.from_notebook_node(notebook, {"cites": cites})
    tex = re.sub(r"\n\s*\n\s*\n", "\n\n", tex)
    (build / "report.tex").write_text(tex, encoding="utf-8")


def _float_files(notebook: NotebookNode) -> dict[str, bytes]:
    """Return the files of all figures and tables, by their path."""
    files: dict[str, bytes] = {}
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        facts = output.metadata.get("flowerlib", {})
        if facts.get("kind") == "figure":
            own = {
                f"figures/{facts['name']}.pdf": base64.b64decode(output.data["application/pdf"]),
                f"figures/{facts['name']}.svg": facts["svg"].encode(),
            }
        elif facts.get("kind") == "table":
            own = {f"tables/{facts['name']}.{kind}": facts[key].encode() for kind, key in TABLE_FILES.items()}
        elif facts.get("kind") == "numbers":
            own = {f"tables/{facts['name']}.csv": facts["csv"].encode()}
        else:
            continue
        if own.keys() & files.keys():
            raise UserError(f"Two {facts['kind']}s of the report are named {facts['name']!r}: rename one.")
        files |= own
    return files


def _convert_pandoc(source: str, from_format: str, to_format: str, extra_args: list[str] | None = None) -> str:
    """Convert Markdown as nbconvert does, by the pandoc of the Python package: none need be on the PATH."""
    options = ["--syntax-highlighting=none"] if to_format == "latex" else []
    return pypandoc.convert_text(source, to_format, from_format, extra_args=options)


def _check_references(tex: str, bib: str) -> None:
    """Raise a `UserError` where a citation or reference has no target: TeX would print ``[?]`` and go on."""
    _check_keys(r"\\cite[tp]?\*?\{([^{}]+)\}", tex, r"@\w+\{([^,\s]+),", bib, "cites", "references.bib")
    _check_keys(r"\\(?:eq|auto)?ref\{([^{}]+)\}", tex, r"\\label\{([^{}]+)\}", tex, "refers to", "the report")


def _check_keys(use: str, text: str, definition: str, source: str, verb: str, place: str) -> None:
    known = re.findall(definition, source)
    for key in (key.strip() for keys in re.findall(use, text) for key in keys.split(",")):
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(f"The report {verb} {key!r}, which is not in {place}.{hint}")


def _typeset(build: Path, out: Path, engine: str) -> None:
    """Make build/report.pdf by ``engine``; the log of a TeX that fails goes to ``out``."""
    for name in TEX_ENGINES:
        (out / f"{name}.log").unlink(missing_ok=True)
    engines = [name for name in TEX_ENGINES if shutil.which(name)] if engine != "typst" else []
    if engine == "tex" and not engines:
        raise UserError(
            f"No TeX is installed (none of {', '.join(TEX_ENGINES)} is on the PATH). "
            "Install one, or make the report with --engine typst, which needs none."
        )
    failures = []
    for name in engines:
        try:
            return _with_tex(build, name)
        except TexFailed as failure:
            log = out / f"{name}.log"
            log.write_text(failure.log, encoding="utf-8")
            failures.append(f"{failure} (see {log})")
    if engine == "tex":
        raise UserError(f"TeX could not set the report. {'; '.join(failures)}. Or use --engine typst.")
    if failures:
        print(f"TeX could not set the report, Typst does it instead. {'; '.join(failures)}", file=sys.stderr)
    _with_typst(build)


def _with_tex(build: Path, engine: str) -> None:
    """Set report.tex by a TeX; raise `TexFailed` if it fails or has no glyph for a character."""
    for path in build.glob("report.*"):  # what another engine left behind
        if path.suffix != ".tex":
            path.unlink()
    run = [engine, *TEX_OPTIONS, "report.tex"]
    cites = r"\bibliography{" in (build / "report.tex").read_text("utf-8")
    bibtex = [["bibtex", "-terse", "report"]] if cites else []
    for command in (run, *bibtex, run, run):
        _run_tex(command, build, engine)
    log = _log(build)
    lost = re.search(r"Missing character: (.*)", log)
    if lost or not (build / "report.pdf").exists():
        raise TexFailed(engine, lost[1] if lost else "it wrote no PDF", log)


def _run_tex(command: list[str], build: Path, engine: str) -> None:
    """Run a program of TeX in ``build``; raise `TexFailed` with the log's line that tells why it failed."""
    # TeX would break its messages at 79 characters; and fonts lie where matplotlib brings them
    environment = {**os.environ, "max_print_line": "1000", "OSFONTDIR": str(build / "fonts")}
    try:
        done = subprocess.run(
            command,
            cwd=build,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TEX_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TexFailed(engine, str(error), _log(build)) from error
    if done.returncode:
        log = _log(build) if command[0] == engine else ""
        line = re.search(r"^! *(.+)(?:\n(?:.*\n)*?(l\.\d+ .*))?", log, re.MULTILINE)
        reason = " ".join(filter(None, line.groups())) if line else f"{command[0]} exited with {done.returncode}"
        raise TexFailed(engine, reason, log or done.stdout)


def _log(build: Path) -> str:
    log = build / "report.log"
    return log.read_text("utf-8", errors="replace") if log.exists() else ""


def _with_typst(build: Path) -> None:
    """Turn report.tex into a Typst document and set that."""
    tex = for_pandoc((build / "report.tex").read_text("utf-8"), build)
    options = ["--standalone", f"--template={REPORT / 'style.typ'}", f"--lua-filter={REPORT / 'typst.lua'}"]
    try:
        body = pypandoc.convert_text(tex, "typst", "latex", extra_args=options, cworkdir=str(build))
    except RuntimeError as error:
        raise UserError(f"pandoc could not read report.tex: {error}") from error
    _check_floats(tex, body)
    (build / "report.typ").write_text(body, encoding="utf-8")
    try:
        typst.compile(build / "report.typ", output=build / "report.pdf", root=build, font_paths=[build / "fonts"])
    except typst.TypstError as error:
        raise UserError(f"Typst could not set the report: {error}") from error
    if lost := _without_a_font(build / "report.typ"):
        print(
            f"No font on this machine has the characters {' '.join(lost)}: the PDF shows empty boxes for them. "
            "Install a font that has them, for example one of Noto's (on Debian and Ubuntu fonts-noto-cjk for "
            "Chinese, Japanese and Korean, fonts-noto-core for other scripts), and make the report again.",
            file=sys.stderr,
        )


def _without_a_font(document: Path) -> list[str]:
    """The characters that Typst has no glyph for. It says so only where PDF/A, an archive's format, is asked for."""
    lost: list[str] = []
    text = document.read_text("utf-8")
    if max(map(ord, text)) < BEYOND_OUR_FONT:
        return lost
    text = text.replace(
        "title: title, date: none", "date: datetime(year: 2000, month: 1, day: 1)"
    )  # PDF/A insists on one
    while True:
        document.write_text(text, encoding="utf-8")
        try:
            typst.compile(document, pdf_standards="a-2u", font_paths=[document.parent / "fonts"])
        except typst.TypstError as error:
            (cluster,) = re.findall(r"the text `\"(.+?)\"` could not be displayed", str(error)) or ("",)
            if not cluster:
                return lost
            code = re.fullmatch(r"\\u\{([0-9a-f]+)\}", cluster)  # how Typst writes what can't be printed at all
            lost.append(chr(int(code[1], 16)) if code else cluster)
            text = text.replace(lost[-1], "")
        else:
            return lost


def for_pandoc(tex: str, build: Path) -> str:
    r"""Return ``tex`` with its tables, less what pandoc's LaTeX reader stumbles over.

    It takes what follows a command that it does not know for an argument, and drops it: a number or ``{[}``
    that opens a cell, after the ``\arraybackslash`` of its column or ``\endlastfoot`` above it.
    """
    tex = re.sub(r"\\input\{(tables/[^{}]+)\}", lambda match: (build / match[1]).read_text("utf-8"), tex)
    width = r"p\{(?:[^{}]|\{[^{}]*\})*\}"
    tex = re.sub(rf">\{{\\raggedleft\\arraybackslash\}}{width}", "r", tex)  # Typst wraps these by itself
    tex = re.sub(r">\{\\(?:raggedright|centering)\\arraybackslash\}", "", tex)
    return tex.replace(r"\endlastfoot", "")


def _check_floats(tex: str, document: str) -> None:
    r"""Raise a `UserError` if pandoc dropped a table or picture, as it does, silently, in a ``\resizebox``."""
    for kind, source, printed in (
        ("table", r"\\begin\{(?:tabular|longtable)", r", kind: table\b"),
        ("figure", r"\\includegraphics\b", r"\bimage\("),
    ):
        if len(re.findall(printed, document)) < len(re.findall(source, tex)):
            labels = re.findall(r"\\label\{((?:tab|fig):[^}]+)\}", tex)
            lost = ", ".join(label for label in labels if f"<{label}>" not in document)
            raise UserError(
                f"Typst would leave out a {kind} of the report{f' ({lost})' if lost else ''}: pandoc can't read "
                r"its LaTeX. Write it more simply (no \resizebox), or install a TeX and use --engine tex."
            )


def _publish(build: Path, out: Path) -> None:
    """Move the build to ``out``, the PDF last, and remove what only an earlier build had."""
    tex = out / "report.tex"
    if tex.exists() and not tex.read_text("utf-8", errors="replace").startswith(GENERATED):
        raise UserError(
            f"{tex} is not one that flowerlib wrote: it is left as it is. Choose another folder with --out."
        )
    floats = _listed(build / "report.tex")
    stale = _listed(out / "report.tex") - floats
    for path in (*sorted(floats), "references.bib", "report.tex", "report.html", "report.pdf"):
        make_folder((out / path).parent)
        with replacing(out / path) as temporary:
            shutil.copyfile(build / path, temporary)
    for path in stale:
        (out / path).unlink(missing_ok=True)


def _listed(tex: Path) -> set[str]:
    """Return the files of figures and tables that a report.tex reads, and the tables' numbers."""
    text = tex.read_text("utf-8", errors="replace") if tex.exists() else ""
    read = set(re.findall(r"\{((?:figures|tables)/[\w.-]+)\}", text))
    return read | {path.removesuffix(".tex") + ".csv" for path in read if path.endswith(".tex")}
