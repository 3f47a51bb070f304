"""What the report says beyond the sessions: the paper's claims judged, its protocol, mistakes, ablations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from flowerlib import figures, similar
from flowerlib.analysis import (
    accuracy,
    accuracy_without,
    calibration_error,
    class_table,
    confident_mistakes,
    format_mean_sd,
    noise,
    outcomes,
    reliability_bins,
    unsure_hits,
)
from flowerlib.claims import (
    FINAL_ACCURACY,
    NOT_SUPPORTED,
    OURS,
    PUBLISHED,
    SUPPORTED,
    UNDECIDED,
    Finding,
    beside_published,
    evaluate,
    findings_table,
    judge_all,
)
from flowerlib.document import Figure, Prose, Table, plain
from flowerlib.gallery import (
    find_photos,
    gallery_figure,
    heatmap_figure,
    pairs_figure,
    why_no_gallery,
    why_no_heatmaps,
)
from flowerlib.metrics import Run, Session, confusion_matrix
from flowerlib.published import published_tables
from flowerlib.sections import captioned, describe_changes, mean_sd, spread_note
from flowerlib.tables import frame_table

Part = Prose | Table | Figure
DECIDED = (SUPPORTED, NOT_SUPPORTED)
EVIDENCE = {PUBLISHED: "published", OURS: "our runs"}


def all_runs(sessions: Sequence[Session]) -> list[Run]:
    """Every seed of every session."""
    return [run for session in sessions for run in session.runs]


def judged(sessions: Sequence[Session]) -> list[Finding]:
    """The paper's claims, judged by its tables and by these sessions."""
    return judge_all(all_runs(sessions))


# ---- beside the published tables


def published_part(sessions: Sequence[Session]) -> list[Part]:
    """Published accuracies beside ours, where the photos are the paper's."""
    table = beside_published(all_runs(sessions))
    table = table[table["seeds"] > 0]
    if sessions[0].info["dataset"]["name"] != "flowers" or table.empty:
        return [Prose("These sessions are not of the paper's photos; its accuracies can't be set beside them.")]

    def ours(protocol: str) -> list[str]:
        return [format_mean_sd(*pair) for pair in zip(table[protocol], table[f"{protocol}_sd"], strict=True)]

    def signed(value: float) -> str:
        return f"{value:+.3f}"

    frame = pd.DataFrame(
        {
            "Session": table["session"],
            "Epochs": table["quantity"],
            "Published": table["published"],
            "Ours, augmented": ours("augmented"),
            "Difference": table["augmented_minus_published"],
            "Ours, clean": ours("clean"),
        }
    )
    caption = (
        "Validation accuracy: published, and ours under the paper's protocol (augmented) and on clean pictures. "
        "Only the first two are of the same protocol. The best epoch is chosen by the pictures that measure it."
    )
    text = (
        r"Table \ref{tab:published} sets the published accuracies beside ours. "
        "The published ones are of augmented pictures; only ours of the same kind may be held against them."
    )
    return [
        Prose(text),
        frame_table(
            frame,
            "published",
            captioned(sessions, caption + spread_note(sessions)),
            {"Difference": signed},
            right=("Ours, augmented", "Ours, clean"),
        ),
    ]


# ---- the claims


def claims_part(sessions: Sequence[Session], findings: Sequence[Finding]) -> list[Part]:
    """Each claim, its measure and its verdicts."""
    table = findings_table(findings)
    first = table["evidence"] == PUBLISHED
    letters = {key: chr(ord("a") + place) for place, key in enumerate(table["key"].drop_duplicates())}
    claims = pd.DataFrame(
        {"": table["key"].map(letters), "Claim": table["claim"], "Asked of its measure": table["claimed"]}
    )[first]
    measures = table.drop_duplicates(["key", "measure"]).groupby("measure", sort=False)
    measures = pd.DataFrame(
        {
            "Of": measures["key"].agg(lambda keys: ", ".join(letters[key] for key in keys)),
            "Taken on": measures["protocol"].first(),
        }
    ).reset_index(names="Measure")[["Of", "Measure", "Taken on"]]
    verdicts = pd.DataFrame(
        {
            "": table["key"].map(letters),
            "Evidence": table["evidence"].map(EVIDENCE),
            "Value [95 % interval]": table["result"],
            "Verdict": table["verdict"],
        }
    )
    text = (
        r"Table \ref{tab:claims} lists what the course report concludes, and in which range of a measure each would "
        r"hold; Table \ref{tab:measures} defines the measures. A claim is supported if the measure's whole "
        r"interval lies in that range, not supported if none of it does, and otherwise not decided by this evidence. "
        r"Table \ref{tab:verdicts} and Figure \ref{fig:claims} judge each twice: by the published tables, and by our "
        f"own sessions. {summarize(findings)}"
    )
    return [
        Prose(text),
        frame_table(claims, "claims", "The conclusions of the course report, and what each asks of its measure."),
        frame_table(measures, "measures", "The measures, and on which validation each is taken."),
        frame_table(verdicts, "verdicts", captioned(sessions, "The conclusions, judged.")),
        Figure(
            figures.claims_figure(findings),
            "claims",
            captioned(sessions, "The conclusions' measures with their intervals; shaded: where a conclusion holds."),
            width=1.0,
        ),
        Prose(_notes(table, letters)),
    ]


def summarize(findings: Sequence[Finding]) -> str:
    """How many claims each evidence decides, and which."""
    said = []
    for evidence, name in {PUBLISHED: "the published tables", OURS: "our sessions"}.items():
        of = {
            verdict: [each.claim.key for each in findings if (each.evidence, each.verdict) == (evidence, verdict)]
            for verdict in (*DECIDED, UNDECIDED)
        }
        decided = [f"{len(of[verdict])} {verdict} ({', '.join(of[verdict])})" for verdict in DECIDED if of[verdict]]
        left = [f"{len(of[UNDECIDED])} not decided"] if of[UNDECIDED] else []
        said.append(f"By {name}, of {sum(map(len, of.values()))} conclusions: {', '.join([*decided, *left])}.")
    return " ".join(said)


def _notes(table: pd.DataFrame, letters: dict[str, str]) -> str:
    """What each of our values rests on."""
    ours = table[table["evidence"] == OURS]
    notes = " ".join(f"({letters[row.key]}) {plain(row.note)}" for row in ours.itertuples())
    return f"*What our values rest on.* {notes}"


# ---- why the published curve jumps


def noise_part(sessions: Sequence[Session]) -> list[Part]:
    """One fixed network, evaluated again and again under the paper's protocol."""
    run = sessions[0].runs[0]
    if len(run.repeats) < 3 or len(set(run.repeats)) < 2 or run.info["dataset"]["name"] != "flowers":
        return []
    table = noise(run.repeats, run.info["split"]["validation"])
    late = {
        name: each.loc[each["epoch"] >= 14, "val_aug_acc"].to_numpy() for name, each in published_tables().items()
    }
    ours = table.loc["repeated evaluation"]
    published = table.drop(index="repeated evaluation")
    text = (
        "The published validation accuracy still jumps from epoch to epoch when the learning rate is 1e-5 and the "
        f"network hardly changes. We took the network of {plain(run.name)} after its last epoch, kept it fixed, and "
        f"evaluated it {len(run.repeats)} times, each time with new random augmentations of the same validation "
        f"pictures. Its accuracy scatters with a standard deviation of {ours['sd']:.4f} (95 % interval "
        f"{ours['sd_low']:.4f} to {ours['sd_high']:.4f}); that of the published accuracies from epoch 14 on is "
        f"{', '.join(f'{value:.4f}' for value in published['sd'])} in its three sessions "
        r"(Table \ref{tab:noise}, Figure \ref{fig:noise}). "
        "Scatter depends on the accuracy and on the number of pictures; so each is held against its own binomial "
        "standard deviation, that of drawing new pictures each time. "
        f"{_noise_verdict(ours, published)}"
    )
    frame = pd.DataFrame(
        {
            "Accuracies of": [*(f"{name}, published" for name in published.index), f"{run.name}, repeated"],
            "Number": table["evaluations"].to_numpy(),
            "Mean": table["mean"].to_numpy(),
            "Standard deviation": table["sd"].to_numpy(),
            "Mean step": table["mean_step"].to_numpy(),
            "Of binomial": (table["sd"] / table["binomial_sd"]).to_numpy(),
        }
    )
    formats = {"Standard deviation": ".4f", "Mean step": ".4f", "Of binomial": ".2f"}
    caption = (
        "Scatter of augmented validation accuracy: published, epochs 14 to 19, and one fixed network of ours, "
        "evaluated anew each time."
    )
    return [
        Prose("## Why the published curves jump"),
        Prose(text),
        Figure(figures.noise_figure(late, run.repeats), "noise", captioned(sessions, caption)),
        frame_table(frame, "noise", captioned(sessions, caption), formats),
    ]


def _noise_verdict(ours: pd.Series, published: pd.DataFrame) -> str:
    """Compare each published scatter, as a share of its binomial one, with that of the fixed network, by F."""
    ratios = (published["sd"] / published["binomial_sd"]) / (ours["sd"] / ours["binomial_sd"])
    freedoms = published["evaluations"] - 1, ours["evaluations"] - 1
    limits = [ratios / np.sqrt(stats.f.ppf(tail, *freedoms)) for tail in (0.975, 0.025)]
    said = ", ".join(f"{ratio:.2f} [{low:.2f}, {high:.2f}]" for ratio, low, high in zip(ratios, *limits, strict=True))
    more = [plain(name) for name, low in limits[0].items() if low > 1]
    return (
        f"So measured, the published sessions scatter {said} times as much as the fixed network (95 % intervals, of "
        "normal values). "
        + (
            f"{' and '.join(more)} jumps by more than the protocol alone makes this network jump."
            if more
            else "None is shown to jump by more than the protocol alone makes this network jump."
        )
    )


# ---- mistakes


def error_part(sessions: Sequence[Session]) -> list[Part]:
    """Confusion, precision and recall, calibration and the worst mistakes of the first session's network."""
    session = sessions[0]
    run = session.runs[0]
    name, photos = plain(run.name), len(run.predictions)
    value, low, high = accuracy(run.predictions)
    error = calibration_error(run.predictions)
    result = outcomes(run.predictions)
    text = (
        f"The network of {name} after its last epoch is right on {result['correct'].sum()} of {photos} clean "
        f"validation pictures: {value:.3f} (95 % interval {low:.3f} to {high:.3f}). "
        r"Figure \ref{fig:confusion} counts its confusions, and Table \ref{tab:classes} gives precision and recall. "
        f"Its mean confidence is {result['confidence'].mean():.3f}; the expected calibration error "
        f"over 15 bins of confidence is {error.value:.3f} (95 % interval {error.low:.3f} to {error.high:.3f}; "
        r"Figure \ref{fig:reliability}). Table \ref{tab:mistakes} names the mistakes of which it was most sure."
    )
    classes = class_table(run.predictions)
    frame = pd.DataFrame(
        {
            "Class": classes.index,
            **{
                f"{quantity.capitalize()} [95 % interval]": [
                    f"{v:.3f} [{a:.3f}, {b:.3f}]"
                    for v, a, b in zip(
                        classes[quantity], classes[f"{quantity}_low"], classes[f"{quantity}_high"], strict=True
                    )
                ]
                for quantity in ("precision", "recall")
            },
        }
    )
    mistakes = confident_mistakes(run.predictions, 8)
    worst = pd.DataFrame(
        {
            "Picture": mistakes["photo"],
            "Label": mistakes["label"],
            "Predicted": mistakes["predicted"],
            "Probability": mistakes["confidence"],
        }
    )
    return [
        Prose(text),
        Figure(
            figures.confusion_figure(confusion_matrix(run.predictions)),
            "confusion",
            captioned(sessions, f"Session {name}: clean validation pictures by label and by most probable class."),
            width=0.55,
        ),
        frame_table(
            frame,
            "classes",
            captioned(sessions, f"Session {name}: precision and recall on clean validation pictures."),
            right=list(frame.columns[1:]),
        ),
        Figure(
            figures.reliability_figure(reliability_bins(run.predictions)),
            "reliability",
            captioned(
                sessions,
                f"Session {name}: accuracy against confidence on clean validation pictures, in bins of equal width; "
                "on the diagonal a network is calibrated.",
            ),
            width=0.6,
        ),
        frame_table(worst, "mistakes", captioned(sessions, f"Session {name}: the most confident mistakes.")),
    ]


def duplicates_part(sessions: Sequence[Session], pairs: pd.DataFrame | None) -> list[Part]:
    """Photos that stand in the data twice, and what they do to the accuracy; ``pairs`` as in duplicates.csv."""
    if pairs is None:
        return []
    heading = Prose("## Duplicate pictures")
    run = sessions[0].runs[0]
    name = plain(run.name)
    across = similar.across_split(pairs, run.predictions["photo"])
    contradictory = similar.under_two_labels(pairs)
    photos = similar.leaked(pairs, run.predictions)
    identical = (pairs["kind"] == similar.IDENTICAL).sum()
    text = (
        f"Among all {sessions[0].info['dataset']['photos']:,} pictures, {identical} pairs are the same file, byte "
        f"for byte, and {len(pairs) - identical} more are near-duplicates: one shot, re-encoded, resized, mirrored "
        f"or cut, or two of a scene in which nothing moved. {len(contradictory)} pairs stand under two labels. "
        f"{len(across)} pairs have one picture among those for training and one among those for validation, where it "
        "tests little."
    )
    if not photos:
        return [heading, Prose(text)]
    table = accuracy_without(run.predictions, photos)
    frame = pd.DataFrame(
        {
            "Validation pictures": table.index,
            "Number": table["photos"].to_numpy(),
            "Accuracy [95 % interval]": [
                f"{row.accuracy:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in table.itertuples()
            ],
        }
    )
    shown = pd.concat([contradictory, across]).drop_duplicates().head(12)
    listing = pd.DataFrame(
        {
            "Kind": shown["kind"],
            "First": shown["first"],
            "Second": shown["second"],
            "Distance": shown["distance"],
        }
    )
    return [
        heading,
        Prose(
            text + r" Table \ref{tab:duplicates} names pairs of both sorts, and Table \ref{tab:without} gives the "
            f"accuracy of {name} with and without the {len(photos)} validation pictures concerned."
        ),
        frame_table(
            listing,
            "duplicates",
            captioned(sessions, "Pairs under two labels or across the split; distance 0 means the same bytes."),
        ),
        frame_table(
            frame,
            "without",
            captioned(sessions, f"Session {name}: clean accuracy with and without these pictures."),
            right=("Accuracy [95 % interval]",),
        ),
    ]


def gallery_part(sessions: Sequence[Session], pairs: pd.DataFrame | None, gallery: bool) -> list[Part]:
    """Mistakes, close calls and near-duplicates as pictures, and where the network looks; if all is at hand."""
    run = sessions[0].runs[0]
    if not gallery:
        return []
    photos = find_photos(run)
    if reason := why_no_gallery(run, photos):
        return [Prose(f"No pictures are shown here. {plain(reason)}")]
    name, mistakes, hits = plain(run.name), confident_mistakes(run.predictions), unsure_hits(run.predictions)

    def figure(drawn: object, key: str, caption: str) -> Figure:
        return Figure(drawn, key, captioned(sessions, caption), width=1.0)

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


# ---- ablations


def ablation_part(ablations: Sequence[Session]) -> list[Part]:
    """What each part of the method is worth, held against the first of the sessions."""
    if len(ablations) < 2:
        return []
    base, *others = ablations
    rows = [_ablation_row(base, session) for session in others]
    settings = base.info["settings"]
    frame = pd.DataFrame(
        {
            "Session": session.name,
            "Clean": mean_sd(session.over_seeds(lambda metrics: metrics["val_acc"].iloc[-1])),
            "Augmented": mean_sd(session.over_seeds(lambda metrics: metrics["val_aug_acc"].iloc[-1])),
            "Clean − first [95 % interval]": row["text"],
        }
        for session, row in zip(ablations, [{"text": "–"}, *rows], strict=True)
    )
    text = (
        f"To see what each part of the method is worth, {plain(settings['model'])} was trained for "
        f"{settings['epochs']} epochs at {settings['image_size']}×{settings['image_size']} pixels with all of it "
        f"({plain(base.name)}), and again with one part left out or changed: "
        + "; ".join(f"{plain(session.name)} has {describe_changes(session, base)}" for session in others)
        + r". Table \ref{tab:ablations} and Figure \ref{fig:ablations} compare the last epochs."
    )
    caption = "Validation accuracy after the last epoch with parts of the method left out."
    return [
        Prose("# What each part is worth"),
        Prose(text),
        frame_table(
            frame,
            "ablations",
            captioned(ablations, caption + spread_note(ablations)),
            right=("Clean", "Augmented", "Clean − first [95 % interval]"),
        ),
        Figure(
            figures.interval_figure(pd.DataFrame(rows), f"Clean accuracy minus that of {base.name}"),
            "ablations",
            captioned(
                ablations,
                "Differences of clean accuracy from the session with all parts, with 95 % "
                "intervals; of the first seed where there are fewer than three.",
            ),
        ),
    ]


def _ablation_row(base: Session, session: Session) -> dict:
    groups = [dict(zip(each.seeds, each.runs, strict=True)) for each in (base, session)]
    interval, _ = evaluate(FINAL_ACCURACY, groups, (base.name, session.name))
    text = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval)
    return {"name": session.name, **interval._asdict(), "text": text}


# ---- in short


def abstract(sessions: Sequence[Session], findings: Sequence[Finding]) -> str:
    """What was found, in a few sentences: the accuracies, the verdicts, the protocol's own scatter."""
    clean = {each.name: each.over_seeds(lambda metrics: metrics["val_acc"].iloc[-1]) for each in sessions}
    augmented = {each.name: each.over_seeds(lambda metrics: metrics["val_aug_acc"].iloc[-1]) for each in sessions}
    runs = all_runs(sessions)
    said = [
        f"In {len(sessions)} training sessions"
        + (f" of {len(runs)} runs in all" if len(runs) > len(sessions) else "")
        + f" on {sessions[0].info['dataset']['photos']:,} pictures the accuracy after the last epoch is "
        f"{_each(clean)} on clean validation pictures, and {_each(augmented)} on pictures augmented like those for "
        "training, as the course report measured.",
        summarize(findings),
    ]
    repeats = sessions[0].runs[0].repeats
    if len(repeats) > 1:
        said.append(
            "A network that is kept fixed scatters under the course report's protocol with a standard deviation of "
            f"{pd.Series(repeats).std():.4f} from one evaluation to the next."
        )
    return " ".join(said)


def _each(values: dict[str, pd.Series]) -> str:
    return ", ".join(f"{mean_sd(value)} ({plain(name)})" for name, value in values.items())


def conclusion(sessions: Sequence[Session], findings: Sequence[Finding]) -> str:
    """The claims, put together by what the two evidences say of them."""
    verdicts = {(each.claim.key, each.evidence): each.verdict for each in findings}
    groups: dict[str, list[str]] = {}
    for claim in dict.fromkeys(each.claim for each in findings):
        heading = _by_both(verdicts[claim.key, PUBLISHED], verdicts[claim.key, OURS])
        groups.setdefault(heading, []).append(f"“{claim.statement.rstrip('.')}”")
    sentences = [f"{heading}: {'; '.join(statements)}." for heading, statements in groups.items()]
    photos = sessions[0].info["split"]["validation"]
    return f"{' '.join(sentences)} One of {photos:,} validation pictures is {1 / photos:.4f} of accuracy."


def _by_both(published: str, ours: str) -> str:
    if published == ours == UNDECIDED:
        return "Decided neither by the published tables nor by our sessions"
    if published == ours:
        return f"{ours.capitalize()} by the published tables and by our sessions"
    short = {UNDECIDED: "not decided"}
    return (
        f"{short.get(published, published).capitalize()} by the published tables, "
        f"{short.get(ours, ours)} by our sessions"
    )
