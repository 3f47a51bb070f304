"""Tables for the report from data frames: booktabs for print, HTML for JupyterLab, from the same cells."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection, Mapping, Sequence

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from flowerlib.report.display import Table, latex_text
from flowerlib.report.phrases import MISSING, decimal

Format = str | Callable[[object], str]
Block = tuple[Sequence[str], Sequence[Sequence[str]]]

# A4 with margins of 2.5 cm, in points; at \small a character takes 4.7 on average, bold ones included.
TEXT_WIDTH, CHARACTER, GAP = 455, 4.7, 9
LONGEST_WORD = 16  # a longer one, e.g. the name of a session, may be broken anywhere


def booktabs(blocks: Sequence[Block], alignment: str) -> tuple[str, str]:
    """Set ``blocks`` of cells, one under the other, each with a header row of its own.

    One tabular, because pandoc would double the caption of two. Columns that would run off an A4 page wrap.

    Args:
        blocks: pairs of a header and rows; all of the same number of cells, of plain text.
        alignment: ``l`` or ``r`` for each column.

    Returns:
        The LaTeX tabular and the HTML table.
    """
    columns = list(zip(*(row for header, rows in blocks for row in (header, *rows)), strict=True))
    lines = ["% needs booktabs and array", rf"\begin{{tabular}}{{@{{}}{_columns(columns, alignment)}@{{}}}}"]
    table = []
    for number, (header, rows) in enumerate(blocks):
        lines += [r"\midrule" if number else r"\toprule", _latex_row(header, r"\textbf{{{}}}"), r"\midrule"]
        lines += [_latex_row(row) for row in rows]
        table += [_html_row(header, "th", alignment), *(_html_row(row, "td", alignment) for row in rows)]
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines), f"<table>{''.join(table)}</table>"


def epoch_table(
    metrics: pd.DataFrame,
    columns: Mapping[str, str],
    name: str,
    caption: str,
    block: int = 10,
    spread: pd.DataFrame | None = None,
) -> Table:
    """Set a session's metrics as the paper's Tables 1-3 do: an epoch a column, in blocks one under the other.

    Args:
        metrics: a row an epoch, with a column ``epoch``.
        columns: the columns to set, with the title of each one's row.
        name: the table's name (see `flowerlib.report.display.Table`).
        caption: the table's caption.
        block: epochs side by side.
        spread: standard deviations, as ``metrics``; each is set under its mean.
    """
    width = min(block, max(len(metrics), 1))
    blocks = []
    for start in range(0, max(len(metrics), 1), block):
        part = metrics.iloc[start : start + block]
        pad = [""] * (width - len(part))
        rows = []
        for column, title in columns.items():
            rows.append([title, *_cells(part[column], decimal), *pad])
            if spread is not None:
                deviations = spread[column].iloc[start : start + block]
                rows.append(["", *_cells(deviations, lambda value: f"±{decimal(value)}"), *pad])
        blocks.append((["Epoch", *_cells(part["epoch"], "d"), *pad], rows))
    data = metrics[["epoch", *columns]]
    if spread is not None:
        data = data.join(spread[list(columns)].add_suffix("_sd"))
    return Table(*booktabs(blocks, "l" + "r" * width), data, name, caption)


def frame_table(
    frame: pd.DataFrame,
    name: str,
    caption: str,
    right: Collection[str] = (),
    data: pd.DataFrame | None = None,
) -> Table:
    """Set ``frame`` as it is: a row a row, a column a column, under the columns' own names.

    Args:
        frame: fractions are set with three decimals, anything else as its text.
        name: the table's name (see `flowerlib.report.display.Table`).
        caption: the table's caption.
        right: columns of text that are aligned to the right, as columns of numbers are.
        data: what its CSV file holds, where that is more than ``frame``.
    """
    numbers = [
        name in right or (is_numeric_dtype(dtype) and not is_bool_dtype(dtype))
        for name, dtype in frame.dtypes.items()
    ]
    columns = [_cells(frame[column], ".3f" if frame[column].dtype.kind == "f" else "") for column in frame.columns]
    block = ([str(column) for column in frame.columns], list(zip(*columns, strict=True)))
    alignment = "".join("r" if number else "l" for number in numbers)
    return Table(*booktabs([block], alignment), frame if data is None else data, name, caption)


def _cells(values: pd.Series, form: Format) -> list[str]:
    """Return each of ``values`` as text."""
    return [_cell(value, form) for value in values]


def _cell(value: object, form: Format) -> str:
    if pd.isna(value):
        return MISSING
    if callable(form):
        return form(value)
    # A column of whole numbers in which one is missing is read from a file as fractions.
    return format(int(value) if form == "d" else value, form)


def _latex_row(cells: Sequence[str], style: str = "{}") -> str:
    """Return a row in which long words may be broken."""
    texts = (latex_text(_breakable(cell)).replace("\u200b", r"\allowbreak{}") for cell in cells)
    return " & ".join(style.format(text) if text else "" for text in texts) + r" \\"


def _html_row(cells: Sequence[str], tag: str, alignment: str) -> str:
    sides = {"l": "left", "r": "right"}
    texts = (
        f'<{tag} style="text-align: {sides[side]}">{html.escape(cell)}</{tag}>'
        for cell, side in zip(cells, alignment, strict=True)
    )
    return f"<tr>{''.join(texts)}</tr>"


def _breakable(text: str) -> str:
    """Return ``text`` with zero-width spaces where a line may end: after ``_`` and ``/``, in long words."""
    return re.sub(rf"([_/](?=.)|[^\W_]{{{LONGEST_WORD}}}(?=\w))", "\\1\u200b", text)


def _columns(columns: Sequence[Sequence[str]], alignment: str) -> str:
    """Return the column specification: ``l`` and ``r``, or a paragraph where the page is too narrow."""
    natural = [max(map(len, column)) for column in columns]
    fitted = _shrink(natural, [_least_width(column) for column in columns])
    ragged = {"l": "raggedright", "r": "raggedleft"}
    return "".join(
        side
        if width == wish
        else rf">{{\{ragged[side]}\arraybackslash}}p{{{width * CHARACTER / TEXT_WIDTH:.3f}\linewidth}}"
        for side, width, wish in zip(alignment, fitted, natural, strict=True)
    )


def _least_width(column: Sequence[str]) -> int:
    """Return the length of the longest part, in characters, that can't be broken."""
    return max(len(part) for text in column for part in re.split(r"[\s\u200b]|(?<=-)", _breakable(text)))


def _shrink(natural: Sequence[int], least: Sequence[int]) -> list[int]:
    """Return widths that fit the page, in characters: the widest columns give way first."""
    widths = list(natural)
    room = (TEXT_WIDTH - GAP * (len(widths) - 1)) / CHARACTER
    while sum(widths) > room:
        slack = [column for column, width in enumerate(widths) if width > least[column]]
        if not slack:
            break
        widths[max(slack, key=widths.__getitem__)] -= 1
    return widths
