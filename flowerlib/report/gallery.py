"""Single photos for the report: mistakes and close calls, near-duplicates, and where a network looks.

A report can be made where photos and checkpoints are not: `photo_figures` then says why there are none.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowerlib.data.crop import centre_crop
from flowerlib.data.duplicates import IDENTICAL, across_split, under_two_labels
from flowerlib.data.listing import class_of
from flowerlib.data.photos import FLOWERS, SYNTHETIC, PhotoSet, photos_for
from flowerlib.errors import UserError
from flowerlib.figures import SMALL, WIDTH, contact_sheet, in_lines, plot_heat
from flowerlib.files import DATA
from flowerlib.report import display
from flowerlib.report.statistics import confident_mistakes, unsure_hits
from flowerlib.runs import LAST, Run

LINE = 0.13  # inches: a line of a title


def photos_of(run: Run) -> PhotoSet | None:
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
        photos: what `photos_of` found.
    """
    name = run.info.dataset.name
    if photos is None:
        return f"The photos of the data set {name} are not on this machine."
    if photos.fingerprint != run.info.dataset.fingerprint:
        return f"The photos in {photos.root} are not those that {run.name} was run on."
    return None


def photo_figures(
    run: Run, pairs: pd.DataFrame | None, labels: pd.DataFrame | None, mark: str
) -> list[display.Prose | display.Figure]:
    """All of it for the report; what can't be shown on this machine is said, and why.

    Args:
        run: the run; nothing is shown, nor said, where only its tables were handed on.
        pairs: near-duplicates among its photos, if they were looked for.
        labels: of `flowerlib.data.labels.rank_labels`, if they were ranked.
        mark: what captions end in.
    """
    if not (run.folder / LAST).exists():
        return []
    photos = photos_of(run)
    if reason := why_no_gallery(run, photos):
        return [display.Prose(display.escaped(reason))]
    mistakes, hits = confident_mistakes(run.predictions), unsure_hits(run.predictions)
    drawn = {
        "gallery-mistakes": (gallery_figure(run, photos, mistakes), "The most confident mistakes"),
        "gallery-hits": (gallery_figure(run, photos, hits), "The least confident right answers"),
    }
    if labels is not None:
        drawn["labels"] = (gallery_figure(run, photos, labels.head(10)), "The most doubtful labels")
    said = []
    if not run.folds:  # no one network predicted all photos of a cross-validation
        try:
            drawn["heat"] = (
                heatmap_figure(run, photos, pd.concat([mistakes.head(3), hits.head(3)])),
                "What speaks for the predicted class (Grad-CAM); outlined: half of the strongest",
            )
        except UserError as error:  # another kind of network, or a lost checkpoint
            said.append(display.Prose(display.escaped(str(error))))
    if pairs is not None and len(pairs):
        first = pd.concat([under_two_labels(pairs), across_split(pairs, run.sides)]).drop_duplicates().head(9)
        validation = set(run.predictions["photo"])
        drawn["pairs"] = (
            pairs_figure(photos, first, validation, others="training or test" if run.info.split.test else "training"),
            "Near-duplicates: under two labels first, then across the split",
        )
    shown = [display.Figure(each, name, f"{caption}.{mark}", width=1.0) for name, (each, caption) in drawn.items()]
    return [*shown, *said]


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
    photos: PhotoSet,
    pairs: pd.DataFrame,
    validation: Collection[str] | None = None,
    columns: int = 3,
    others: str = "training",
) -> Figure:
    """Near-duplicates side by side, whole, each under its class folder and side of the split.

    Args:
        photos: the data set.
        pairs: of `flowerlib.data.duplicates.find_pairs`.
        validation: relative paths of the validation photos; None: each photo is under its file's name instead.
        columns: pairs side by side.
        others: the side of the photos that are not among ``validation``.
    """
    if pairs.empty:
        return _nothing()
    width = WIDTH / columns / 2
    titles = [
        [_place(path, validation, others, width) for path in pair]
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
        UserError: the checkpoint can't be used, or the network is of another kind.
    """
    from flowerlib.training.trained import grad_cam, last_feature_layer, load_network  # PyTorch takes seconds

    network = load_network(run)
    layer = last_feature_layer(network)
    if layer is None:
        raise UserError(
            f"Heat maps are made for ResNets and EfficientNet-Lite0 only, not for {run.info.settings.model}."
        )
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


def _place(path: str, validation: Collection[str] | None, others: str, width: float) -> str:
    below = path.split("/")[-1]
    if validation is not None:
        below = "validation" if path in validation else others
    return f"{in_lines(class_of(path), width)}\n{in_lines(below, width)}"


def _views(run: Run, photos: PhotoSet, rows: pd.DataFrame) -> np.ndarray:
    """Photos as the network sees them in clean validation: uint8 (n, size, size, 3)."""
    size = run.info.settings.image_size
    return np.stack([centre_crop(photos.read(photos.paths.index(name)), size) for name in rows["photo"]])


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
