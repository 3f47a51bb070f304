"""What a cell of a report shows: richly in JupyterLab, and as LaTeX for the PDF.

A cell ends in one of these objects. Its output in the notebook holds all that the PDF needs, files included,
so that a report notebook writes nothing and needs no output folder; `flowerlib.report.pdf` takes it from there. The
output's metadata say what it is: ``{"flowerlib": {"kind": "figure", "name": "curves"}}``.

Captions are plain text in which ``$..$`` is mathematics and ``\\ref{}`` and ``\\cite{}`` work. Names that
come from users (sessions, classes) go through `escaped` there and in `Prose`, so that ``my_roses & $co`` prints
as it is.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Javascript
from matplotlib.figure import Figure as MatplotlibFigure

from flowerlib.files import REPORT

# `{[}` and `{*}`: after a row's `\\` a bare one is read as the row's spacing.
_LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[]*"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_MARKUP = re.compile(
    r"\\(?P<escaped>[!-/:-@\[-`{-~])"
    r"|(?P<math>\$(?=\S)(?:\\.|[^$\\])+?(?<=\S)\$(?!\d))"  # pandoc's rule: "$5 and $6" is money
    r"|\\(?P<command>ref|eqref|cite[tp]?)\{(?P<keys>[^{}]+)\}"
)


def latex_text(text: str) -> str:
    """Return ``text`` as LaTeX that prints it literally, on one line."""
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(str(text).split()))
    return re.sub("-(?=-)", "-{}", escaped)  # two hyphens would become a dash


def escaped(text: str) -> str:
    """Return ``text`` so that a caption, or Markdown, shows it literally."""
    return re.sub(r"""([\\`*_{}\[\]<>#$&%~^|@!"'])""", r"\\\1", " ".join(str(text).split()))


def _checked(text: str) -> str:
    r"""Return ``text``; refuse the ``\r`` that ``"\ref{}"`` in an ordinary Python string begins with."""
    wrong = re.search(r"[\x00-\x08\x0b-\x1f]", text)
    if wrong:
        raise ValueError(
            f"{text!r} holds the control character {wrong[0]!r}: write a raw string, "
            r'r"\ref{..}" or rf"\ref{{..}}".'
        )
    return text


def slug(name: str) -> str:
    """Return ``name`` fit for a file and a label: itself if it is, else distinct for every name.

    Two names that differ in punctuation only, or that are in Chinese, must not share a file: a name that had
    to be changed ends in a checksum of the original.
    """
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")
    return safe if safe == name else f"{safe}-{zlib.crc32(name.encode()):08x}".lstrip("-")


def _convert(text: str, literal: Callable[[str], str], markup: Callable[[re.Match], str]) -> str:
    """Translate a caption: ``literal`` for its text, ``markup`` for mathematics and references."""
    parts, end = [], 0
    for match in _MARKUP.finditer(text):
        parts.append(literal(text[end : match.start()]))
        parts.append(literal(match["escaped"]) if match["escaped"] else markup(match))
        end = match.end()
    return "".join([*parts, literal(text[end:])])


def _caption_latex(caption: str) -> str:
    def literal(text: str) -> str:  # latex_text drops the spaces at the seams
        return re.sub(r"\S+", lambda word: latex_text(word[0]), text)

    return _convert(" ".join(caption.split()), literal, lambda match: match[0])


def _caption_html(caption: str) -> str:
    return _convert(" ".join(caption.split()), html.escape, lambda match: _shown(html.escape(match[0])))


def _shown(text: str) -> str:
    """Return ``text`` with its references out of MathJax's reach."""
    return re.sub(r"\\(?:eq)?ref\{[^{}]+\}", r'<span class="mathjax_ignore">\g<0></span>', text)


_numbers: dict[str, int] = {}  # of figures and tables, in the order in which they are made: the order of print


def _numbered(label: str) -> int:
    kind = label.split(":")[0]
    return _numbers.setdefault(label, 1 + sum(known.startswith(f"{kind}:") for known in _numbers))


def _float_html(body: str, label: str, caption: str) -> str:
    """Return ``body`` with its number and caption, for JupyterLab, which does not number floats."""
    kind = "Figure" if label.startswith("fig:") else "Table"
    return (
        f'<figure style="margin: 1em 0">{body}<figcaption style="text-align: left">'
        f"<b>{kind} {_numbered(label)}:</b> {_caption_html(caption)}</figcaption></figure>"
    )


# In JupyterLab MathJax reads `\ref{}` too, and knows no number of ours. In outputs it is kept off; a Markdown cell
# shows its "???", and the hidden editor of that cell still holds what was referred to. Cells come and go while one
# scrolls: what appears is filled in as it appears.
_FILL_IN = r"""
const numbers = %s;
const pattern = /\\(ref|eqref|cite[tp]?)\{([^{}]+)\}/g;
const number = (key) => numbers[key.trim()] ?? key;
function fill(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.data.search(pattern) < 0 || node.parentElement?.closest(".cm-editor, textarea, input")) continue;
    node.data = node.data.replace(pattern, (_, command, keys) => {
      const filled = keys.split(",").map(number).join(", ");
      return command.startsWith("cite") ? `[${filled}]` : filled;
    });
  }
}
function fillTypeset() {
  document.querySelectorAll(".jp-MarkdownCell").forEach((cell) => {
    const source = cell.querySelector(".cm-content")?.textContent ?? "";
    const keys = [...source.matchAll(/\\(?:eq)?ref\s*\{([^{}]+)\}/g)].map((match) => match[1]);
    const unknown = [...cell.querySelectorAll("mjx-container")].filter((ref) => ref.querySelector('mrow[href="#"]'));
    if (keys.length === unknown.length) unknown.forEach((ref, place) => ref.replaceWith(number(keys[place])));
  });
}
function fillAll(nodes) {
  nodes.forEach(fill);
  fillTypeset();
}
fillAll([document.body]);
new MutationObserver((changes) => fillAll(changes.flatMap((change) => [...change.addedNodes])))
  .observe(document.body, { childList: true, subtree: true });
"""


def resolve_references(bibliography: Path = REPORT / "references.bib") -> Javascript:
    r"""Show ``\ref`` and ``\cite`` as numbers in JupyterLab, in Markdown cells too; the notebook's last cell.

    Citations have the numbers of print as long as references.bib is in the order of citation.
    """
    cited = re.findall(r"^@\w+\{([^,\s]+),", bibliography.read_text("utf-8"), re.MULTILINE)
    numbers = _numbers | {key: place for place, key in enumerate(cited, 1)}
    return Javascript(_FILL_IN % json.dumps(numbers))


class Figure:
    r"""A matplotlib figure with a caption: ``figures/<name>.pdf``, cited as ``\ref{fig:<name>}``.

    It is drawn at once, so that an error shows in its own cell, and then closed, or else Jupyter would show
    it a second time.

    Args:
        figure: the figure, or anything that is drawn in one (an Axes).
        name: of file and label; one that is not fit for them is changed (see `slug` and `label`).
        caption: plain text, with mathematics and references.
        width: in the PDF, as a fraction of the text's width.
    """

    def __init__(self, figure: MatplotlibFigure, name: str, caption: str, width: float = 0.8):
        figure = figure if isinstance(figure, MatplotlibFigure) else figure.get_figure(root=True)
        self.name, self.caption, self.width = slug(name), _checked(caption), width
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once: each time anew, it would move a little
        self.svg = _drawn(figure, "svg", dpi=150, metadata={"Date": None})
        self.pdf = _drawn(figure, "pdf", dpi=200, metadata={"CreationDate": None})
        plt.close(figure)

    @property
    def label(self) -> str:
        r"""What ``\ref{}`` takes."""
        return f"fig:{self.name}"

    @property
    def latex(self) -> str:
        """The float, which reads ``figures/<name>.pdf``."""
        return (
            f"\\begin{{figure}}[htbp]\n\\centering\n"
            f"\\includegraphics[width={self.width:g}\\linewidth]{{figures/{self.name}.pdf}}\n"
            f"\\caption{{{_caption_latex(self.caption)}}}\\label{{{self.label}}}\n\\end{{figure}}"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        source = f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"
        image = f'<img src="{source}" style="width: {self.width:.0%}" alt="{html.escape(self.caption)}">'
        data = {
            "text/plain": f"Figure {self.label}: {self.caption}",
            "text/html": _float_html(image, self.label, self.caption),
            "text/latex": self.latex,
            "application/pdf": base64.b64encode(self.pdf).decode(),
        }
        return data, {"flowerlib": {"kind": "figure", "name": self.name, "svg": self.svg.decode()}}


def _drawn(figure: MatplotlibFigure, kind: str, **options) -> bytes:
    """Return ``figure`` as a file's bytes, the same for the same figure."""
    buffer = io.BytesIO()
    # TrueType, since type 3 fonts can't be searched everywhere; a salt, since SVG's ids are random without one
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "flowerlib"}):
        figure.savefig(buffer, format=kind, bbox_inches="tight", **options)
    return buffer.getvalue()


class Table:
    r"""A table with a caption: its tabular is ``tables/<name>.tex``, cited as ``\ref{tab:<name>}``.

    `flowerlib.report.tables` makes them from data frames.

    Args:
        tabular: a LaTeX ``tabular`` (booktabs).
        html: the same as an HTML ``<table>``.
        data: its numbers, unrounded, and those of the text about it: ``tables/<name>.csv``.
        name: of file and label; one that is not fit for them is changed (see `slug` and `label`).
        caption: plain text, with mathematics and references.
    """

    def __init__(self, tabular: str, html: str, data: pd.DataFrame, name: str, caption: str):
        self.tabular, self.html, self.data = tabular, html, data
        self.name, self.caption = slug(name), _checked(caption)

    @property
    def label(self) -> str:
        r"""What ``\ref{}`` takes."""
        return f"tab:{self.name}"

    @property
    def latex(self) -> str:
        """The float, which reads ``tables/<name>.tex``."""
        return (
            f"\\begin{{table}}[htbp]\n\\centering\\small\n"
            f"\\caption{{{_caption_latex(self.caption)}}}\\label{{{self.label}}}\n"
            f"\\input{{tables/{self.name}.tex}}\n\\end{{table}}"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {
            "text/plain": f"Table {self.label}: {self.caption}",
            "text/html": _float_html(self.html, self.label, self.caption),
            "text/latex": self.latex,
        }
        csv = self.data.to_csv(index=False, lineterminator="\n")
        return data, {"flowerlib": {"kind": "table", "name": self.name, "tabular": self.tabular, "csv": csv}}


class Numbers:
    """Numbers that sentences are made from, where no table or figure shows them: ``tables/<name>.csv`` alone."""

    def __init__(self, data: pd.DataFrame, name: str):
        self.data, self.name = data, slug(name)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {
            "text/plain": self.data.to_string(),
            "text/html": self.data.to_html(),
            "text/latex": f"% {{tables/{self.name}.csv}}",
        }
        csv = self.data.to_csv(index=False, lineterminator="\n")
        return data, {"flowerlib": {"kind": "numbers", "name": self.name, "csv": csv}}


@dataclass(frozen=True)
class Prose:
    r"""Markdown in which code has put the numbers; ``\ref{}`` and ``\cite{}`` work (`resolve_references`)."""

    markdown: str

    def __post_init__(self):
        _checked(self.markdown)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {"text/plain": self.markdown, "text/markdown": _shown(self.markdown)}
        return data, {"flowerlib": {"kind": "prose"}}


@dataclass(frozen=True)
class TitlePage:
    """Title, authors and date, and what a reader must know before all else.

    Attributes:
        title: plain text.
        authors: one text an author; further lines of it are e.g. the school and an e-mail address.
        date: plain text; none is printed if it is empty.
        notice: as a caption, printed in a frame under the title, e.g. that the photos are synthetic.
    """

    title: str
    authors: Sequence[str]
    date: str = ""
    notice: str = ""

    @property
    def latex(self) -> str:
        """The title as printed by ``\\maketitle``, then the notice."""
        authors = r" \and ".join(r" \\ ".join(map(latex_text, author.splitlines())) for author in self.authors)
        lines = [
            rf"\title{{{latex_text(self.title)}}}",
            rf"\author{{{authors}}}",
            rf"\date{{{latex_text(self.date)}}}",
            r"\maketitle",
        ]
        if self.notice:
            lines += [r"\begin{notice}", _caption_latex(self.notice), r"\end{notice}"]
        return "\n".join(lines)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        authors = " · ".join(html.escape(author).replace("\n", ", ") for author in self.authors)
        notice = '<p style="border: 2px solid; padding: .5em; display: inline-block"><b>{}</b></p>'
        page = [
            f"<h1>{html.escape(self.title)}</h1><p>{authors}</p><p>{html.escape(self.date)}</p>",
            notice.format(_caption_html(self.notice)) if self.notice else "",
        ]
        data = {
            "text/plain": self.title,
            "text/html": f'<div style="text-align: center">{"".join(page)}</div>',
            "text/latex": self.latex,
        }
        return data, {"flowerlib": {"kind": "title"}}
