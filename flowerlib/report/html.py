"""The report as one HTML file, from the same report.tex as the PDF, by pandoc."""

from __future__ import annotations

import re
from pathlib import Path

import pypandoc

from flowerlib.errors import UserError, one_line
from flowerlib.files import REPORT


def write_html(tex: str, build: Path) -> None:
    """Write ``build``/report.html: figures as SVG, formulas as MathML, everything in one file.

    Args:
        tex: report.tex as pandoc reads it (`flowerlib.report.pdf.for_pandoc`).
        build: holds figures/*.svg and references.bib.

    Raises:
        UserError: pandoc can't read the report.
    """
    options = [
        "--standalone",
        f"--template={REPORT / 'template.html'}",
        f"--lua-filter={REPORT / 'html.lua'}",
        "--mathml",
        "--number-sections",
        "--section-divs",
        "--wrap=none",
        "--citeproc",
        f"--csl={REPORT / 'numeric.csl'}",
        "--bibliography=references.bib",
        "--metadata=link-citations:true",
        "--metadata=reference-section-title:References",
        "--embed-resources",
        f"--resource-path={build}",
    ]
    tex = re.sub(r"(\{figures/[^{}]+)\.pdf\}", r"\1.svg}", tex)
    tex = tex.replace("{abstract}", "{summary}")  # in an abstract, pandoc leaves references without their numbers
    try:
        html = pypandoc.convert_text(
            tex,
            "html5",
            "latex",
            extra_args=options,
            cworkdir=str(build),
        )
    except RuntimeError as error:
        raise UserError(f"pandoc could not make HTML of report.tex: {one_line(error)}.") from error
    (build / "report.html").write_text(html, encoding="utf-8")
