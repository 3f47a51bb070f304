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

from flowerlib.metrics import Run, Session

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


def plot_epochs(
    curves: Mapping[str, pd.Series],
    quantity: str,
    *,
    spread: Mapping[str, pd.Series] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot curves over the epochs.

    Args:
        curves: values indexed by epoch, by label.
        quantity: ``loss`` or ``acc``: what the values are.
        spread: half the width of a band around some of the curves, by label.
        ax: where to draw; a new one if None.
    """
    ax = plt.subplots()[1] if ax is None else ax
    for label, values in curves.items():
        (line,) = ax.plot(values.index, values, label=label)
        if spread and label in spread:
            low, high = values - spread[label], values + spread[label]
            ax.fill_between(values.index, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.set(xlabel="Epoch", ylabel=_QUANTITIES[quantity])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax


def plot_run(session: Run | Session, quantity: str, *, ax: Axes | None = None) -> Axes:
    """Plot a session's training curve and both validation curves; ``quantity`` is ``loss`` or ``acc``.

    Several seeds give their mean, in a band of one standard deviation to either side.
    """
    columns = {name: f"{key}_{quantity}" for key, name in _PASSES.items()}
    curves, spread = ({name: table[column] for name, column in columns.items()} for table in _by_epoch(session))
    return plot_epochs(curves, quantity, spread=spread, ax=ax)


def plot_runs(sessions: Sequence[Run | Session], column: str, *, ax: Axes | None = None) -> Axes:
    """Plot one column of metrics.csv (``val_aug_acc``, say) for several sessions, as `plot_run` does."""
    tables = {session.name: _by_epoch(session) for session in sessions}
    curves, spread = ({name: pair[which][column] for name, pair in tables.items()} for which in (0, 1))
    return plot_epochs(curves, column.rsplit("_", 1)[1], spread=spread, ax=ax)


def _by_epoch(session: Run | Session) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means and standard deviations over the seeds; these are 0 of one seed, a band that can't be seen."""
    metrics = session.metrics.set_index("epoch")
    return metrics, metrics * 0 if session.spread is None else session.spread.set_index("epoch")


def session_figure(session: Run | Session, first: Run | Session | None = None) -> Figure:
    """Loss (left) and accuracy (right) of one session.

    Args:
        session: the session.
        first: a session to compare it with, in a second row: both under augmented validation, the paper's.
    """
    rows = [partial(plot_run, session)]
    if first is not None:
        rows.append(lambda quantity, ax: plot_runs([first, session], f"val_aug_{quantity}", ax=ax))
    figure = plt.figure(figsize=(6.3, 2.5 * len(rows)))
    for part, plot in zip(figure.subfigures(len(rows), squeeze=False).flat, rows, strict=True):
        for quantity, ax in zip(_QUANTITIES, part.subplots(ncols=2), strict=True):
            plot(quantity, ax=ax).get_legend().remove()
        # one legend for both, where it covers no curve
        part.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def interval_figure(table: pd.DataFrame, label: str) -> Figure:
    """Values with their intervals, one under the other, beside a line at zero.

    Args:
        table: ``name``, ``value``, ``low`` and ``high``.
        label: of the axis.
    """
    figure, ax = plt.subplots(figsize=(6.3, 0.8 + 0.3 * len(table)))
    places = range(len(table))[::-1]
    reach = [table["value"] - table["low"], table["high"] - table["value"]]
    ax.errorbar(table["value"], places, xerr=reach, fmt="o", capsize=2, color="black")
    ax.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    ax.set_yticks(places, table["name"])
    ax.set_xlabel(label)
    return figure


def reliability_figure(bins: pd.DataFrame) -> Figure:
    """Accuracy against confidence, with intervals, over a histogram of the confidence.

    Args:
        bins: of `flowerlib.analysis.reliability_bins`.
    """
    figure, (ax, counts) = plt.subplots(2, figsize=(3.6, 4.2), sharex=True, height_ratios=[3, 1])
    filled = bins[bins["photos"] > 0]
    reach = [filled["accuracy"] - filled["accuracy_low"], filled["accuracy_high"] - filled["accuracy"]]
    ax.plot([0, 1], [0, 1], color="grey", linestyle=":", marker="", linewidth=0.8)
    ax.errorbar(filled["confidence"], filled["accuracy"], yerr=reach, fmt="o", capsize=2, color="black")
    ax.set(ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1))
    counts.bar(
        bins["from"],
        bins["photos"],
        width=bins["to"] - bins["from"],
        align="edge",
        color="#0072B2",
        edgecolor="white",
    )
    counts.set(xlabel="Confidence", ylabel="Pictures")
    return figure


def noise_figure(published: Mapping[str, np.ndarray], repeats: Sequence[float]) -> Figure:
    """Published late accuracies beside those of one fixed network, each less its own mean.

    Args:
        published: accuracies of the late epochs, by session.
        repeats: accuracies of one network, evaluated again and again.
    """
    series = {
        **{f"{name}, published": values for name, values in published.items()},
        "one network, repeated": repeats,
    }
    figure, ax = plt.subplots(figsize=(6.3, 2.6))
    for place, values in enumerate(series.values()):
        distances = np.asarray(values) - np.mean(values)
        ax.plot(distances, len(series) - 1 - place + np.linspace(-0.25, 0.25, len(distances)), "o", color="black")
        deviation = distances.std(ddof=1)
        ax.barh(len(series) - 1 - place, 2 * deviation, left=-deviation, height=0.7, color="#56B4E9", alpha=0.5)
    ax.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(series))[::-1], series)
    ax.set_xlabel("Accuracy less its mean; shaded: one standard deviation to either side")
    return figure


def claims_figure(findings: pd.DataFrame) -> Figure:
    """A panel a claim: its measure with interval by each evidence, and the range in which the claim holds.

    Args:
        findings: of `flowerlib.claims.findings_table`.
    """
    groups = list(findings.groupby("key", sort=False))
    rows = -(-len(groups) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(6.3, 1.15 * rows), squeeze=False)
    for ax in axes.flat[len(groups) :]:
        ax.set_axis_off()
    for ax, (key, group) in zip(axes.flat, groups, strict=False):
        _plot_claim(group[::-1], ax)
        ax.set_title(key, size=8)
    return figure


def _plot_claim(findings: pd.DataFrame, ax: Axes) -> None:
    claimed_low, claimed_high = findings[["claimed_low", "claimed_high"]].iloc[0]
    ends = [end for end in (claimed_low, claimed_high, *findings["low"], *findings["high"]) if np.isfinite(end)]
    margin = 0.15 * (max(ends) - min(ends)) or 1.0
    left, right = min(ends) - margin, max(ends) + margin
    ax.axvspan(max(claimed_low, left), min(claimed_high, right), color="#009E73", alpha=0.2, linewidth=0)
    for place, finding in enumerate(findings.itertuples()):
        reach = [[finding.value - finding.low], [finding.high - finding.value]]
        filling = "white" if finding.evidence == "published" else "black"
        ax.errorbar(finding.value, place, xerr=reach, fmt="o", capsize=2, color="black", markerfacecolor=filling)
    ax.set(xlim=(left, right), ylim=(-0.6, len(findings) - 0.4))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_yticks(range(len(findings)), findings["evidence"])


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
