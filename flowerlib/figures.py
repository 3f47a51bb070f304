"""Figures from metric tables and photos. Each function draws and returns; the caller shows or saves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence, Set

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from flowerlib.runs import Run

# Okabe and Ito's colours, told apart by the colour-blind; dashes and markers tell them apart in grey print
_STYLES = (
    cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"])
    + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))])
    + cycler(marker=["o", "s", "^", "D", "v", "x"])
)

USUAL_FONT = "STIXGeneral"  # matplotlib brings it, and the PDF's text is set in it or its like
WIDTH = 6.3  # inches: the text's width on A4
SMALL = 7  # points
PICTURE = 1.1  # inches: the width of one in a contact sheet
MOST_NAMED_CLASSES = 20  # in one figure
PER_INCH = 13  # characters of small serif text; 15 on average
PER_LINE = 80  # characters of four entries in a legend as wide as the text

_QUANTITIES = {"loss": "Cross-entropy (nats)", "acc": "Top-1 accuracy"}
_PASSES = {"train": "training", "val": "validation, clean", "val_aug": "validation, augmented"}


def use_report_style(names: Iterable[str] = ()) -> None:
    """Set matplotlib to the look of the report, whatever the user's own settings are.

    Args:
        names: what the figures will show, such as class names: where the usual font lacks a character, fonts on this
            machine that have it are used too.
    """
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "font.family": [USUAL_FONT, *_fonts_with(set("".join(names)))],
            "mathtext.fontset": "stix",
            "font.size": 9,
            "axes.prop_cycle": _STYLES,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.markersize": 3,
            "lines.linewidth": 1,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
            "pdf.fonttype": 42,  # TrueType: text in the PDF stays text
        }
    )


def _fonts_with(characters: Set[str]) -> list[str]:
    """Fonts on this machine that have what the usual one lacks: few of them, in no particular style."""
    missing = {ord(character) for character in characters} - _characters_in(findfont(USUAL_FONT))
    families = []
    for font in fontManager.ttflist if missing else ():
        if found := missing & _characters_in(font.fname):
            families.append(font.name)
            missing -= found
    return families


def _characters_in(font: str) -> Set[int]:
    return FT2Font(font).get_charmap().keys()


def in_lines(text: str, width: float) -> str:
    """``text`` in lines that fit ``width`` inches in small print, wherever they must break; a dollar is a dollar."""
    return "\n".join(textwrap.wrap(text, int(width * PER_INCH))).replace("$", r"\$")


def plot_run(run: Run, quantity: str, *, ax: Axes | None = None) -> Axes:
    """Plot a run's training curve and both validation curves; ``quantity`` is ``loss`` or ``acc``."""
    ax = plt.subplots()[1] if ax is None else ax
    for key, name in _PASSES.items():
        ax.plot(run.metrics["epoch"], run.metrics[f"{key}_{quantity}"], label=name)
    ax.set(xlabel="Epoch", ylabel=_QUANTITIES[quantity])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def session_figure(run: Run) -> Figure:
    """Loss (left) and accuracy (right) of one run."""
    figure, axes = plt.subplots(ncols=2, figsize=(WIDTH, 2.5), layout="constrained")
    for quantity, ax in zip(_QUANTITIES, axes, strict=True):
        plot_run(run, quantity, ax=ax)
    # one legend for both, where it covers no curve
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=len(_PASSES))
    return figure


def training_figure(rows: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Loss (left) and accuracy (right) over the epochs, as in the paper: training dashed, validation solid.

    Args:
        rows: by title (may be empty), tables by label with ``epoch`` and ``train_loss``, ``train_acc``,
            ``val_aug_loss``, ``val_aug_acc``. All rows share their axes.
    """
    figure, axes = plt.subplots(
        len(rows), 2, squeeze=False, sharey="col", figsize=(WIDTH, 0.4 + 2.1 * len(rows)), layout="constrained"
    )
    for (title, tables), pair in zip(rows.items(), axes, strict=True):
        for quantity, ax in zip(_QUANTITIES, pair, strict=True):
            plot_training(tables, quantity, ax=ax).set_title(title, loc="left", fontsize=SMALL + 1)
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes[:, 0]), key=lambda each: len(each[1]))
    figure.legend(handles, labels, loc="outside upper center", ncols=4 if sum(map(len, labels)) < PER_LINE else 2)
    return figure


def plot_training(tables: Mapping[str, pd.DataFrame], quantity: str, *, ax: Axes | None = None) -> Axes:
    """Plot training (dashed) and augmented validation (solid) of each table; ``quantity`` is ``loss`` or ``acc``."""
    ax = plt.subplots()[1] if ax is None else ax
    for (label, table), style in zip(tables.items(), _STYLES, strict=False):
        for column, name, line in (("train", "training", "--"), ("val_aug", "validation", "-")):
            values = table[f"{column}_{quantity}"]
            marker = style["marker"] if line == "-" else ""
            ax.plot(table["epoch"], values, line, marker=marker, color=style["color"], label=f"{label}, {name}")
    ax.set(xlabel="Epoch", ylabel=_QUANTITIES[quantity])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def plot_intervals(table: pd.DataFrame, label: str, *, zero: bool = True, ax: Axes | None = None) -> Axes:
    """Plot values with their intervals, one under the other.

    Args:
        table: ``name``, ``value``, ``low`` and ``high``.
        label: of the axis.
        zero: draw a line at zero, as for differences.
        ax: where to draw; a new one if None.
    """
    ax = plt.subplots(figsize=(WIDTH, 0.8 + 0.3 * len(table)))[1] if ax is None else ax
    places = range(len(table))[::-1]
    reach = [table["value"] - table["low"], table["high"] - table["value"]]
    ax.errorbar(table["value"], places, xerr=reach, fmt="o", capsize=2, color="black")
    if zero:
        ax.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    ax.set_yticks(places, [in_lines(name, WIDTH / 3) for name in table["name"]])
    ax.set_xlabel(in_lines(label, WIDTH / 2))
    return ax


def plot_confusion(matrix: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Plot a confusion matrix: labels in rows, predictions in columns, counts in the fields.

    For more than `MOST_NAMED_CLASSES` it shows shares by colour alone, and neither counts nor names.
    """
    side = 1.6 + 0.45 * min(len(matrix), MOST_NAMED_CLASSES)
    ax = plt.subplots(figsize=(side, side))[1] if ax is None else ax
    shares = matrix.div(matrix.sum(axis="columns").clip(lower=1), axis="index")
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(matrix) <= MOST_NAMED_CLASSES:
        for (row, column), count in np.ndenumerate(matrix.to_numpy()):
            colour = "white" if shares.iat[row, column] > 0.5 else "black"
            ax.text(column, row, count, ha="center", va="center", color=colour)
        ax.set_xticks(range(len(matrix)), matrix.columns, rotation=45, ha="right")
        ax.set_yticks(range(len(matrix)), matrix.index)
    ax.set(xlabel="Predicted", ylabel="Label")
    ax.spines[:].set_visible(False)
    return ax


def contact_sheet(images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 8) -> Figure:
    """Pictures in a grid.

    Args:
        images: n of any size, each uint8 (height, width, 3).
        titles: n titles.
        columns: pictures in a row.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(PICTURE * columns, 1.3 * rows), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(image)
        ax.set_title(title, fontsize=SMALL)
    return figure


def answer_figure(name: str, view: np.ndarray, likely: pd.Series, heat: np.ndarray | None = None) -> Figure:
    """A photo, where the network looks if that is known, and its most probable classes as bars.

    Args:
        name: of the photo.
        view: uint8 (size, size, 3).
        likely: probabilities by class, the highest first.
        heat: as `plot_heat` takes it.
    """
    figure, axes = plt.subplots(1, 2 if heat is None else 3, figsize=(WIDTH, 2.2), layout="constrained")
    axes[0].imshow(view)
    if heat is not None:
        plot_heat(view, heat, ax=axes[1])
    for ax, title in zip(axes[:-1], (name, "where the network looks"), strict=False):
        ax.set_title(in_lines(title, WIDTH / len(axes)), fontsize=SMALL)
        ax.set_axis_off()
    bars = axes[-1].barh(range(len(likely))[::-1], likely)
    axes[-1].bar_label(bars, fmt="%.2f", padding=2)
    axes[-1].set_yticks(range(len(likely))[::-1], [in_lines(each, 1) for each in likely.index])
    axes[-1].set(xlim=(0, 1.15), xticks=[], xlabel="Probability")
    return figure


def plot_heat(view: np.ndarray, heat: np.ndarray, *, ax: Axes) -> Axes:
    """A photo, bright where it speaks for a class, the strongest half outlined.

    Args:
        view: uint8 (size, size, 3).
        heat: (size, size), of `flowerlib.training.trained.grad_cam`.
        ax: where to draw.
    """
    ax.imshow((view * (0.25 + 0.75 * heat[..., None])).astype(np.uint8))
    if heat.any():
        outline = ax.contour(heat, levels=[0.5], colors="white", linewidths=1)
        outline.set_path_effects([withStroke(linewidth=2, foreground="black")])
    return ax


def reliability_figure(bins: pd.DataFrame) -> Figure:
    """Confidence against accuracy, with intervals, above the number of photos in each bin.

    Args:
        bins: of `flowerlib.report.statistics.reliability_bins`. Empty ones stay empty.
    """
    figure, (ax, below) = plt.subplots(2, sharex=True, figsize=(4.4, 4.4), height_ratios=[3, 1], layout="constrained")
    filled = bins[bins["photos"] > 0]
    middles, width = (filled["from"] + filled["to"]) / 2, filled["to"] - filled["from"]
    ax.plot([0, 1], [0, 1], color="black", linestyle="--", marker="", label="perfect calibration")
    errors = [filled["accuracy"] - filled["accuracy_low"], filled["accuracy_high"] - filled["accuracy"]]
    ax.errorbar(
        filled["confidence"], filled["accuracy"], errors, fmt="o", capsize=2, label="the network, 95 % intervals"
    )
    ax.set(ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    bars = below.bar(middles, filled["photos"], width, color="0.85", edgecolor="black", linewidth=0.5)
    # beside each other numbers of four digits have room, longer ones on end
    upright = filled["photos"].max() >= 10_000
    below.bar_label(bars, fontsize=SMALL, padding=1, rotation=90 if upright else 0)
    below.margins(y=0.7 if upright else 0.25)
    below.set(xlabel="Confidence (above: mean of the bin)", ylabel="Photos")
    return figure
