"""What the report says of the ablations: the method with parts left out."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from flowerlib import figures
from flowerlib.report.descriptions import captioned, describe_changes, transfers
from flowerlib.report.display import Figure, Prose, plain
from flowerlib.report.measures import FINAL_ACCURACY, evaluate
from flowerlib.report.sections import Part, mean_sd, spread_note
from flowerlib.report.statistics import format_interval, holm
from flowerlib.report.tables import frame_table
from flowerlib.runs import Session


def ablation_part(ablations: Sequence[Session]) -> list[Part]:
    """What each part of the method is worth, held against the first of the sessions."""
    if len(ablations) < 2:
        return []
    base, *others = ablations
    rows = [_ablation_row(base, session) for session in others]
    settings = base.info.settings
    frame = pd.DataFrame(
        {
            "Session": session.name,
            "Clean": mean_sd(session.last("val_acc")),
            "Augmented": mean_sd(session.last("val_aug_acc")),
            "Clean − first [95 % interval]": row["text"],
        }
        for session, row in zip(ablations, [{"text": "–"}, *rows], strict=True)
    )
    text = (
        f"To see what each part of the method is worth, {plain(settings.model)} was trained for "
        f"{settings.epochs} epochs at {settings.image_size}×{settings.image_size} pixels with all of it "
        f"({plain(base.name)}), and again with one part left out or changed: "
        + "; ".join(f"{plain(session.name)} has {describe_changes(session, base)}" for session in others)
        + r". Table \ref{tab:ablations} and Figure \ref{fig:ablations} compare the last epochs. Of several intervals "
        "one or another misses zero by chance."
        + "".join(
            f" Without transferred weights ({plain(row['name'])}) the clean accuracy changes by {row['text']}."
            for row, session in zip(rows, others, strict=True)
            if transfers(base) and not transfers(session)
        )
    )
    caption = "Validation accuracy after the last epoch, clean and augmented, with parts of the method left out."
    return [
        Prose("# Parts left out"),
        Prose(text),
        frame_table(
            frame,
            "ablations",
            captioned(ablations, caption + spread_note(ablations)),
            right=("Clean", "Augmented", "Clean − first [95 % interval]"),
            data=_ablation_data(ablations, rows),
        ),
        Figure(
            figures.interval_figure(pd.DataFrame(rows), f"Clean accuracy minus that of {base.name}"),
            "ablations",
            captioned(
                ablations,
                f"Clean accuracy after the last epoch minus that of {plain(base.name)}, the session with all parts, "
                "with 95 % intervals. With three seeds and more they are over seeds and pictures; with fewer, of the "
                "first seed and over the pictures alone: they leave out what another seed would change.",
            ),
        ),
    ]


def _ablation_data(ablations: Sequence[Session], rows: Sequence[dict]) -> pd.DataFrame:
    lasts = {name: [each.last(name) for each in ablations] for name in ("val_acc", "val_aug_acc")}
    columns = {"session": [each.name for each in ablations], "seeds": [len(each.runs) for each in ablations]}
    for name, values in lasts.items():
        columns |= {name: [each.mean() for each in values], f"{name}_sd": [each.std() for each in values]}
    differences = pd.DataFrame(rows).rename(columns={"name": "session", "value": "difference"}).drop(columns="text")
    differences["holm_p"] = holm(differences["p"])  # over these ablations
    return pd.DataFrame(columns).merge(differences, how="left", on="session")


def _ablation_row(base: Session, session: Session) -> dict:
    groups = [dict(zip(each.seeds, each.runs, strict=True)) for each in (base, session)]
    estimate = evaluate(FINAL_ACCURACY, groups, (base.name, session.name)).estimate
    interval = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    text = format_interval(*interval.values(), "+.3f")
    return {"name": session.name, **interval, "p": estimate.p(0.0), "text": text}
