"""Figures of verdicts and of others' runs, drawn from the tables of `verdicts` and `paper.others`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from flowerlib.figures import SMALL, WIDTH, in_lines
from flowerlib.report.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED, final_verdicts

COLUMNS = 3
MARKERS = {SUPPORTED: ("o", "black"), CONTRADICTED: ("X", "black"), UNDECIDED: ("o", "white")}
SOURCES = {"the paper": ("s", "C1"), "others": ("o", "C0")}  # colours of `use_report_style`


def claims_figure(table: pd.DataFrame) -> Figure:
    """A panel for each claim and protocol: two validations never share an axis.

    Args:
        table: of `flowerlib.report.verdicts.findings_table`.
    """
    panels = [panel for _, panel in table.dropna(subset="value").groupby(["key", "protocol"], sort=False)]
    rows = max(-(-len(panels) // COLUMNS), 1)
    figure, axes = plt.subplots(
        rows, COLUMNS, squeeze=False, figsize=(WIDTH, 0.5 + 1.25 * rows), layout="constrained"
    )
    for ax, panel in zip(axes.flat, panels, strict=False):
        plot_claim(panel, ax=ax)
    for ax in list(axes.flat)[len(panels) :]:
        ax.remove()
    figure.legend(handles=_legend(), loc="outside upper center", ncols=4)
    return figure


def plot_claim(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """The values of one claim with their intervals, and in grey the range that supports it.

    Args:
        table: rows of `flowerlib.report.verdicts.findings_table`, of one claim and one protocol.
        ax: where to draw; a new one if None.
    """
    ax = plt.subplots()[1] if ax is None else ax
    first = table.iloc[0]
    numbers = table[["low", "high", "claimed_low", "claimed_high"]].to_numpy(dtype=float).ravel()
    numbers = numbers[np.isfinite(numbers)]
    margin = 0.08 * (numbers.max() - numbers.min()) or 1
    ax.set(xlim=(numbers.min() - margin, numbers.max() + margin), ylim=(len(table) - 0.5, -0.5))
    ax.axvspan(*np.clip([first["claimed_low"], first["claimed_high"]], *ax.get_xlim()), color="0.88", linewidth=0)
    for place, (row, verdict) in enumerate(zip(table.itertuples(), final_verdicts(table), strict=True)):
        marker, face = MARKERS[verdict]
        ax.plot([row.low, row.high], [place, place], color="black", linestyle="-", marker="")
        ax.plot(row.value, place, linestyle="", color="black", marker=marker, markerfacecolor=face, markersize=5)
    ax.set_yticks(range(len(table)), table["evidence"])
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(labelsize=SMALL)
    ax.set_title(in_lines(f"({first['key']}) {first['claim']}", WIDTH / COLUMNS), fontsize=SMALL, loc="left", x=-0.2)
    ax.set_xlabel(first["label"], fontsize=SMALL)
    return ax


def _legend() -> list[Line2D | Patch]:
    marks = [
        Line2D([], [], color="black", linestyle="-", marker=marker, markerfacecolor=face, markersize=5, label=verdict)
        for verdict, (marker, face) in MARKERS.items()
    ]
    return [Patch(color="0.88", label="supports the claim"), *marks]


def plot_others(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Late accuracies of the published sessions among those of others; bars are one standard deviation of epochs.

    Args:
        table: of `flowerlib.report.paper.others.others_table`.
        ax: where to draw; a new one if None.
    """
    ax = plt.subplots(figsize=(WIDTH, 0.7 + 0.25 * len(table)))[1] if ax is None else ax
    for source, (marker, colour) in SOURCES.items():
        rows = table[table["source"] == source]
        ax.errorbar(
            rows["late_acc"], rows.index, xerr=rows["late_sd"], fmt=marker, color=colour, capsize=2, label=source
        )
    names = table["model"].str.replace("resnet", "ResNet-") + ", batch " + table["batch_size"].astype(str)
    labels = [name if run in name else f"{name} ({run})" for name, run in zip(names, table["run"], strict=True)]
    papers = table["source"] == "the paper"
    ax.set_yticks(table.index, np.where(papers, names, labels))
    ax.invert_yaxis()
    ax.set_xlabel("Validation accuracy, augmented, mean from epoch 14 on")
    ax.legend()
    return ax
