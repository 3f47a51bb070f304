"""Figures from metric tables and photos. Each function draws and returns; the caller shows or saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowerlib.metrics import Run

# Okabe and Ito's colours, told apart by the colour-blind; dashes and markers tell them apart in grey print
_STYLES = (
    cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"])
    + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))])
    + cycler(marker=["o", "s", "^", "D", "v", "x"])
)

_QUANTITIES = {"loss": "Cross-entropy (nats)", "acc": "Top-1 accuracy"}
_PASSES = {"train": "training", "val": "validation, clean", "val_aug": "validation, augmented"}


def use_report_style() -> None:
    """Set matplotlib to the look of the report: serif, small, no frame on top and right."""
    plt.rcParams.update(
        {
            "font.family": "serif",
            "mathtext.fontset": "cm",
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


def plot_epochs(curves: Mapping[str, pd.Series], quantity: str, *, ax: Axes | None = None) -> Axes:
    """Plot curves over the epochs.

    Args:
        curves: values indexed by epoch, by label.
        quantity: ``loss`` or ``acc``: what the values are.
        ax: where to draw; a new one if None.
    """
    ax = plt.subplots()[1] if ax is None else ax
    for label, values in curves.items():
        ax.plot(values.index, values, label=label)
    ax.set(xlabel="Epoch", ylabel=_QUANTITIES[quantity])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax


def plot_run(run: Run, quantity: str, *, ax: Axes | None = None) -> Axes:
    """Plot one session's training curve and both validation curves; ``quantity`` is ``loss`` or ``acc``."""
    table = run.metrics.set_index("epoch")
    return plot_epochs({name: table[f"{key}_{quantity}"] for key, name in _PASSES.items()}, quantity, ax=ax)


def plot_runs(runs: Sequence[Run], column: str, *, ax: Axes | None = None) -> Axes:
    """Plot one column of metrics.csv (``val_aug_acc``, say) for several sessions."""
    curves = {run.name: run.metrics.set_index("epoch")[column] for run in runs}
    return plot_epochs(curves, column.rsplit("_", 1)[1], ax=ax)


def session_figure(run: Run, first: Run | None = None) -> Figure:
    """Loss (left) and accuracy (right) of one session.

    Args:
        run: the session.
        first: a session to compare it with, in a second row: both under augmented validation, the paper's.
    """
    rows = [partial(plot_run, run)]
    if first is not None:
        rows.append(lambda quantity, ax: plot_runs([first, run], f"val_aug_{quantity}", ax=ax))
    figure = plt.figure(figsize=(6.3, 2.5 * len(rows)))
    for part, plot in zip(figure.subfigures(len(rows), squeeze=False).flat, rows, strict=True):
        for quantity, ax in zip(_QUANTITIES, part.subplots(ncols=2), strict=True):
            plot(quantity, ax=ax).get_legend().remove()
        # one legend for both, where it covers no curve
        part.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def confusion_figure(matrix: pd.DataFrame) -> Figure:
    """A confusion matrix: labels in rows, predictions in columns, counts in the fields."""
    side = 1.6 + 0.45 * len(matrix)
    figure, ax = plt.subplots(figsize=(side, side))
    shares = matrix.div(matrix.sum(axis="columns").clip(lower=1), axis="index")
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix.to_numpy()):
        colour = "white" if shares.iat[row, column] > 0.5 else "black"
        ax.text(column, row, count, ha="center", va="center", color=colour)
    ax.set_xticks(range(len(matrix)), matrix.columns, rotation=45, ha="right")
    ax.set_yticks(range(len(matrix)), matrix.index)
    ax.set(xlabel="Predicted", ylabel="Label")
    ax.spines[:].set_visible(False)
    return figure


def contact_sheet(images: np.ndarray, titles: Sequence[str], columns: int = 8) -> Figure:
    """Pictures in a grid.

    Args:
        images: uint8 (n, height, width, 3).
        titles: n titles.
        columns: pictures in a row.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.1 * columns, 1.3 * rows), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(image)
        ax.set_title(title, fontsize=7)
    return figure
