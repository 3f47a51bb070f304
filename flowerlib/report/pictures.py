"""Photos in the report: mistakes, close calls, near-duplicates and where the network looks, if they are at hand."""

from __future__ import annotations

import pandas as pd

from flowerlib.data.duplicates import across_split, under_two_labels
from flowerlib.report.display import Figure, Prose, escaped
from flowerlib.report.statistics import confident_mistakes, unsure_hits
from flowerlib.runs import LAST, Run


def show(run: Run, pairs: pd.DataFrame | None, labels: pd.DataFrame | None, mark: str) -> list[Prose | Figure]:
    """Figures of a run's photos; why there are none, if they or the network are not on this machine.

    Args:
        run: the run.
        pairs: near-duplicates among its photos, if they were looked for.
        labels: of `flowerlib.data.labels.rank_labels`, if they were ranked.
        mark: what captions end in.
    """
    if not (run.folder / LAST).exists():  # tables that were handed on, as those in report/results
        return []
    from flowerlib.report import gallery  # PyTorch takes seconds to import

    photos = gallery.find_photos(run)
    if reason := gallery.why_no_gallery(run, photos):
        return [Prose(escaped(reason))]
    mistakes, hits = confident_mistakes(run.predictions), unsure_hits(run.predictions)
    drawn = {
        "gallery-mistakes": (gallery.gallery_figure(run, photos, mistakes), "The most confident mistakes"),
        "gallery-hits": (gallery.gallery_figure(run, photos, hits), "The least confident right answers"),
    }
    if labels is not None:
        drawn["labels"] = (gallery.gallery_figure(run, photos, labels.head(10)), "The most doubtful labels")
    if not gallery.why_no_heatmaps(run, photos):
        rows = pd.concat([mistakes.head(3), hits.tail(3)])
        drawn["heat"] = (
            gallery.heatmap_figure(run, photos, rows),
            "What speaks for the predicted class (Grad-CAM); outlined: half of the strongest",
        )
    if pairs is not None and len(pairs):
        first = pd.concat([under_two_labels(pairs), across_split(pairs, run.sides)])
        drawn["pairs"] = (
            gallery.pairs_figure(photos, first.drop_duplicates().head(9), set(run.predictions["photo"])),
            "Near-duplicates: under two labels first, then across the split",
        )
    return [Figure(figure, name, f"{caption}.{mark}", width=1.0) for name, (figure, caption) in drawn.items()]
