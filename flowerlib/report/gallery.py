"""Single photos for the report: mistakes and close calls, near-duplicates, and where a network looks.

A report can be made where photos and checkpoints are not: ask `why_no_gallery` and `why_no_heatmaps` first.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowerlib.data.duplicates import IDENTICAL
from flowerlib.data.listing import class_of
from flowerlib.data.photos import FLOWERS, SYNTHETIC, PhotoSet, photos_for
from flowerlib.errors import UserError
from flowerlib.figures import SMALL, WIDTH, contact_sheet, in_lines, plot_heat
from flowerlib.files import DATA
from flowerlib.runs import Run
from flowerlib.training.trained import clean_views, grad_cam, last_feature_layer, load_network

LINE = 0.13  # inches: a line of a title


def find_photos(run: Run) -> PhotoSet | None:
    """The photos that a run names, if they are on this machine; nothing is fetched or drawn."""
    source = run.info.settings.data
    named = source == FLOWERS and os.environ.get("FLOWERLIB_DATA")
    if source in (FLOWERS, SYNTHETIC) and not named and not (DATA / source).is_dir():
        return None
    try:
        return photos_for(run.info.settings)
    except UserError:
        return None


def why_no_gallery(run: Run, photos: PhotoSet | None) -> str | None:
    """Why a run's photos can't be shown, as a sentence; None if they can.

    Args:
        run: the run.
        photos: what `find_photos` found.
    """
    name = run.info.dataset.name
    if photos is None:
        return f"The photos of the data set {name} are not on this machine."
    if photos.fingerprint != run.info.dataset.fingerprint:
        return f"The photos in {photos.root} are not those that {run.name} was run on."
    return None


def why_no_heatmaps(run: Run, photos: PhotoSet | None) -> str | None:
    """Why it can't be shown where a run's network looks, as a sentence; None if it can."""
    try:
        if reason := why_no_gallery(run, photos):
            return reason
        if last_feature_layer(load_network(run)) is None:
            return f"Heat maps are made for ResNets and EfficientNet-Lite0 only, not for {run.info.settings.model}."
    except UserError as error:
        return str(error)
    return None


def gallery_figure(run: Run, photos: PhotoSet, rows: pd.DataFrame, columns: int = 5) -> Figure:
    """Photos as the network saw them in clean validation, each under its label, prediction and probability.

    Args:
        run: whose predictions they are.
        photos: its photos.
        rows: of `flowerlib.report.statistics.confident_mistakes` or `unsure_hits`.
        columns: photos side by side.
    """
    if rows.empty:
        return _nothing()
    titles = _titles(rows, WIDTH / columns)
    figure = contact_sheet(_views(run, photos, rows), titles, columns)
    figure.set_layout_engine("constrained")
    lines = -(-len(rows) // columns) * _most_lines(titles)
    figure.set_size_inches(WIDTH, -(-len(rows) // columns) * WIDTH / columns + lines * LINE)
    return figure


def pairs_figure(
    photos: PhotoSet, pairs: pd.DataFrame, validation: Collection[str] | None = None, columns: int = 3
) -> Figure:
    """Near-duplicates side by side, whole, each under its class folder and side of the split.

    Args:
        photos: the data set.
        pairs: of `flowerlib.data.duplicates.find_pairs`.
        validation: relative paths of the validation photos; None: each photo is under its file's name instead.
        columns: pairs side by side.
    """
    if pairs.empty:
        return _nothing()
    width = WIDTH / columns / 2
    titles = [
        [_place(path, validation, width) for path in pair]
        for pair in pairs[["first", "second"]].itertuples(index=False)
    ]
    rows = -(-len(pairs) // columns)
    lines = 1 + max(map(_most_lines, titles))
    figure = plt.figure(figsize=(WIDTH, rows * (width + lines * LINE)), layout="constrained")
    parts = figure.subfigures(rows, columns, squeeze=False).flat
    for part, pair, said in zip(parts, pairs.itertuples(), titles, strict=False):
        part.suptitle("identical" if pair.kind == IDENTICAL else f"distance {pair.distance:.2f}", fontsize=SMALL)
        for ax, path, title in zip(part.subplots(ncols=2), (pair.first, pair.second), said, strict=True):
            _show(ax, photos.read(photos.paths.index(path)), title)
    return figure


def heatmap_figure(run: Run, photos: PhotoSet, rows: pd.DataFrame) -> Figure:
    """Photos, and under each what of it speaks for the predicted class: bright, the strongest half outlined.

    Grad-CAM (see `grad_cam`) on the network of last.pt, which predictions.csv is of.

    Args:
        run: whose network it is.
        photos: its photos.
        rows: a handful of `flowerlib.report.statistics.confident_mistakes` or `unsure_hits`.

    Raises:
        UserError: the checkpoint can't be used, or the network is of another kind (see `why_no_heatmaps`).
    """
    network = load_network(run)
    layer = last_feature_layer(network)
    if layer is None:
        raise UserError(why_no_heatmaps(run, photos))
    if rows.empty:
        return _nothing()
    views = _views(run, photos, rows)
    predicted = [run.classes.index(name) for name in rows["predicted"]]
    maps = grad_cam(network, layer, views, predicted, run.info.input)

    side = WIDTH / max(len(rows), 4)
    titles = _titles(rows, side)
    size = side * len(rows), 2 * side + _most_lines(titles) * LINE
    figure, axes = plt.subplots(2, len(rows), squeeze=False, figsize=size, layout="constrained")
    for view, heat, title, (above, below) in zip(views, maps, titles, axes.T, strict=True):
        _show(above, view, title)
        plot_heat(view, heat, ax=below).set_anchor("N")
        below.set_axis_off()
    return figure


def _place(path: str, validation: Collection[str] | None, width: float) -> str:
    below = path.split("/")[-1]
    if validation is not None:
        below = "validation" if path in validation else "training"
    return f"{in_lines(class_of(path), width)}\n{in_lines(below, width)}"


def _views(run: Run, photos: PhotoSet, rows: pd.DataFrame) -> np.ndarray:
    return clean_views(photos, rows["photo"], run.info.settings.image_size)


def _titles(rows: pd.DataFrame, width: float) -> list[str]:
    """``label → predicted, probability`` for pictures of ``width`` inches."""
    return [
        f"{in_lines(f'{row.label} →', width)}\n{in_lines(f'{row.predicted}, {row.confidence:.2f}', width)}"
        for row in rows.itertuples(index=False)
    ]


def _most_lines(titles: Sequence[str]) -> int:
    return max(title.count("\n") + 1 for title in titles)


def _show(ax: Axes, picture: np.ndarray, title: str) -> None:
    ax.imshow(picture)
    ax.set_anchor("N")  # titles of one height, also above pictures of different heights
    ax.set_title(title, fontsize=SMALL)
    ax.set_axis_off()


def _nothing() -> Figure:
    figure, ax = plt.subplots(figsize=(WIDTH, 0.4))  # a notebook draws no figure without axes
    ax.set_axis_off()
    figure.text(0.5, 0.5, "none", ha="center", va="center", style="italic")
    return figure
