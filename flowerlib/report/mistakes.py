"""What the report says of a network's mistakes, of duplicate pictures, and what it shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan

import pandas as pd

from flowerlib import figures
from flowerlib.data import duplicates as similar
from flowerlib.report.descriptions import captioned
from flowerlib.report.display import Figure, Prose, plain
from flowerlib.report.sections import Part
from flowerlib.report.statistics import (
    BINS,
    accuracy,
    accuracy_without,
    calibration_error,
    class_table,
    confident_mistakes,
    format_interval,
    outcomes,
    reliability_bins,
    unsure_hits,
)
from flowerlib.report.tables import MISSING, frame_table
from flowerlib.runs import LAST, Session, confusion_matrix

MOST_LISTED = 25  # classes, in a table that must fit a page


def error_part(sessions: Sequence[Session]) -> list[Part]:
    """Confusion, precision and recall, calibration and the worst mistakes of the first session's network."""
    session = sessions[0]
    run = session.runs[0]
    name, photos = plain(run.name), len(run.predictions)
    right, error = accuracy(run.predictions), calibration_error(run.predictions)
    result = outcomes(run.predictions)
    sure = result["confidence"].mean()
    text = (
        f"The network of {name} after its last epoch is right on {result['correct'].sum()} of {photos} clean "
        f"validation pictures, with a mean confidence of {sure:.3f}. "
        r"Table \ref{tab:overall} gives its accuracy and its expected calibration error, "
        r"Figure \ref{fig:confusion} counts its confusions, Table \ref{tab:classes} gives precision and recall, and "
        r"Figure \ref{fig:reliability} holds accuracy against confidence. Table \ref{tab:mistakes} names the "
        "mistakes of which it was most sure."
    )
    overall = pd.DataFrame(
        [
            ("Accuracy", *right),
            ("Mean confidence", sure, nan, nan),
            (f"Expected calibration error, {BINS} bins", *error),
        ],
        columns=["quantity", "value", "low", "high"],
    )
    shown = pd.DataFrame(
        {
            "Quantity": overall["quantity"],
            "Value": overall["value"],
            "95 % interval": [
                MISSING if isnan(row.low) else f"{row.low:.3f} to {row.high:.3f}" for row in overall.itertuples()
            ],
        }
    )
    classes = class_table(run.predictions)
    listed = classes.sort_values("recall", kind="stable").head(MOST_LISTED) if len(classes) > MOST_LISTED else classes
    which = f", the {MOST_LISTED} classes with the lowest recall" if len(classes) > MOST_LISTED else ""
    frame = pd.DataFrame(
        {
            f"{quantity.capitalize()} [95 % interval]": _intervals(
                listed[quantity], listed[f"{quantity}_low"], listed[f"{quantity}_high"]
            )
            for quantity in ("precision", "recall")
        },
        index=listed.index.rename("Class"),
    )
    worst = confident_mistakes(run.predictions, 8)[["photo", "label", "predicted", "confidence"]]
    worst.columns = ["Picture", "Label", "Predicted", "Probability"]
    return [
        Prose(text),
        frame_table(
            shown,
            "overall",
            captioned(sessions[:1], f"Session {name}: accuracy and calibration on clean validation pictures."),
            right=("95 % interval",),
            data=overall,
        ),
        Figure(
            figures.confusion_figure(confusion_matrix(run.predictions)),
            "confusion",
            captioned(
                sessions[:1], f"Session {name}: clean validation pictures by label and by most probable class."
            ),
            width=0.55,
        ),
        frame_table(
            frame,
            "classes",
            captioned(sessions[:1], f"Session {name}: precision and recall on clean validation pictures{which}."),
            right=list(frame),
            data=classes.reset_index(),
        ),
        Figure(
            figures.reliability_figure(reliability_bins(run.predictions)),
            "reliability",
            captioned(
                sessions[:1],
                f"Session {name}: accuracy against confidence on clean validation pictures, in bins of equal width; "
                "on the diagonal a network is calibrated.",
            ),
            width=0.6,
        ),
        frame_table(worst, "mistakes", captioned(sessions[:1], f"Session {name}: the most confident mistakes.")),
    ]


def duplicates_part(sessions: Sequence[Session], pairs: pd.DataFrame | None) -> list[Part]:
    """Near-duplicate photos, and what they do to the accuracy; ``pairs`` as in duplicates.csv."""
    heading = Prose("## Duplicate pictures")
    if pairs is None:
        text = (
            "These pictures have not been searched for near-duplicates, or the table of them is missing. The command "
            "`flowerlib run`, with the same options as for these sessions, makes the table without repeating any "
            "finished session."
        )
        return [heading, Prose(text)]
    run = sessions[0].runs[0]
    name = plain(run.name)
    across = similar.across_split(pairs, run.predictions["photo"])
    contradictory = similar.under_two_labels(pairs)
    photos = similar.leaked(pairs, run.predictions)
    identical = (pairs["kind"] == similar.IDENTICAL).sum()
    text = (
        f"We looked for pairs among all {sessions[0].info.dataset.photos:,} pictures. Of the same file, byte "
        f"for byte: {identical}. Of one shot, re-encoded, resized, mirrored or cut, or of two shots of a scene in "
        f"which nothing moved: {len(pairs) - identical}. Of these pairs, under two labels: {len(contradictory)}; "
        "with one picture among those for training and one among those for validation, where it tests little: "
        f"{len(across)}."
    )
    if left_out := pairs.attrs.get(similar.LEFT_OUT):
        text += (
            f" The search was limited: {left_out:,} pairs of pictures that look somewhat alike were not compared in "
            "detail."
        )
    if not photos:
        return [heading, Prose(text)]
    table = accuracy_without(run.predictions, photos)
    frame = pd.DataFrame(
        {
            "Number": table["photos"],
            "Accuracy [95 % interval]": _intervals(table["accuracy"], table["low"], table["high"]),
        }
    ).rename_axis("Validation pictures")
    listing = pd.concat([contradictory, across]).drop_duplicates()
    listing.columns = ["Kind", "First", "Second", "Distance"]
    return [
        heading,
        Prose(
            text + r" Table \ref{tab:duplicates} names pairs of both sorts, and Table \ref{tab:without} gives the "
            f"accuracy of {name} with and without the {len(photos)} validation pictures concerned."
        ),
        frame_table(
            listing.head(12),
            "duplicates",
            "Pairs of pictures under two labels or across the split. Distance: 0 of the same bytes, else 1 minus the "
            f"correlation of the two pictures' details, {similar.FARTHEST:g} at most.",
            data=listing,
        ),
        frame_table(
            frame,
            "without",
            captioned(
                sessions[:1],
                f"Session {name}: clean accuracy on all validation pictures, without those of the pairs, and on "
                "those alone.",
            ),
            right=("Accuracy [95 % interval]",),
            data=table.reset_index(names="pictures"),
        ),
    ]


def gallery_part(sessions: Sequence[Session], pairs: pd.DataFrame | None, gallery: bool) -> list[Part]:
    """Mistakes, close calls and near-duplicates as pictures, and where the network looks; if all is at hand."""
    run = sessions[0].runs[0]
    if not gallery:
        return []
    if not (run.folder / LAST).exists():  # tables that were handed on, as those of report/results
        return [Prose(f"No pictures are shown here: the network of {plain(run.name)} (last.pt) is not at hand.")]
    from flowerlib.report.gallery import (  # PyTorch takes seconds to import
        find_photos,
        gallery_figure,
        heatmap_figure,
        pairs_figure,
        why_no_gallery,
        why_no_heatmaps,
    )

    photos = find_photos(run)
    if reason := why_no_gallery(run, photos):
        return [Prose(f"No pictures are shown here. {plain(reason)}")]
    name, mistakes, hits = plain(run.name), confident_mistakes(run.predictions), unsure_hits(run.predictions)

    def figure(drawn: object, key: str, caption: str) -> Figure:
        return Figure(drawn, key, captioned(sessions[:1], caption), width=1.0)

    parts: list[Part] = [
        Prose(
            r"Figure \ref{fig:gallery-mistakes} shows the mistakes of which the network was most sure, and "
            r"Figure \ref{fig:gallery-hits} what it got right by the smallest probability."
        ),
        figure(
            gallery_figure(run, photos, mistakes),
            "gallery-mistakes",
            f"Session {name}: the most confident mistakes, with label, prediction and its probability.",
        ),
        figure(
            gallery_figure(run, photos, hits),
            "gallery-hits",
            f"Session {name}: the least sure of the right answers.",
        ),
    ]
    if reason := why_no_heatmaps(run, photos):
        parts.append(Prose(plain(reason)))
    else:
        parts.append(
            figure(
                heatmap_figure(run, photos, pd.concat([mistakes.head(3), hits.tail(3)])),
                "heat",
                f"Session {name}: what of a picture speaks for the predicted class (Grad-CAM), of the most "
                "confident mistakes and of right answers that were close calls; outlined: half of the strongest.",
            )
        )
    if pairs is not None and len(pairs):
        first = pd.concat([similar.under_two_labels(pairs), similar.across_split(pairs, run.predictions["photo"])])
        caption = "Pairs of pictures that stand there twice: under two labels first, then across the split."
        parts.append(figure(pairs_figure(run, photos, first.drop_duplicates().head(9)), "pairs", caption))
    return parts


def _intervals(values: pd.Series, lows: pd.Series, highs: pd.Series) -> list[str]:
    return [format_interval(*row) for row in zip(values, lows, highs, strict=True)]
