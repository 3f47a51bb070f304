"""How the report judges the paper: beside its tables, claim by claim, and its protocol's noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from flowerlib import figures
from flowerlib.report.beside import beside_published, headline, noise
from flowerlib.report.claim_figures import claims_figure
from flowerlib.report.claims import ABOUT_DOUBLE, CLAIMS, SLIGHT, SMALL_STEP, paper_sessions
from flowerlib.report.descriptions import (
    captioned,
    describe_draws,
    describe_start,
    describe_task,
    is_of_papers_photos,
    weights_note,
)
from flowerlib.report.display import Figure, Prose, plain
from flowerlib.report.measures import MIN_SEEDS
from flowerlib.report.paper.published import published_tables
from flowerlib.report.sections import Part, spread_note
from flowerlib.report.statistics import format_interval, format_mean_sd
from flowerlib.report.tables import frame_table
from flowerlib.report.verdicts import (
    CONTRADICTED,
    NOT_AFTER_CORRECTION,
    OURS,
    PUBLISHED,
    SUPPORTED,
    UNDECIDED,
    Finding,
    findings_table,
    judge_all,
)
from flowerlib.runs import Run, Session

DECIDED = (SUPPORTED, CONTRADICTED)
EVIDENCE = {PUBLISHED: "published", OURS: "our runs"}
SOURCES = {PUBLISHED: "the published tables", OURS: "our sessions"}
VERBS = {SUPPORTED: "support", CONTRADICTED: "contradict", UNDECIDED: "leave undecided"}


def all_runs(sessions: Sequence[Session]) -> list[Run]:
    """Every seed of every session."""
    return [run for session in sessions for run in session.runs]


def judged(sessions: Sequence[Session], ablations: Sequence[Session] = ()) -> list[Finding]:
    """The paper's claims, judged by its tables, by these sessions and by the ablations."""
    return judge_all(all_runs(sessions), all_runs(ablations))


# ---- beside the published tables


def published_part(sessions: Sequence[Session]) -> list[Part]:
    """Published accuracies beside ours, where the photos are the paper's."""
    table = beside_published(all_runs(sessions))
    table = table[table["seeds"] > 0]
    if not is_of_papers_photos(sessions) or table.empty:
        return [Prose("These sessions are not the course report's, on its pictures: they can't be set beside it.")]
    sessions = _papers(sessions)

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
        "Validation accuracy: published, and ours under its protocol (augmented) and on clean pictures. "
        "The difference is between the first two, which are of one protocol. The best epoch is chosen by the "
        "pictures that measure it."
    )
    text = (
        r"Table \ref{tab:published} sets the published accuracies beside ours. "
        "The published ones are of augmented pictures; only ours of the same kind may be held against them."
    )
    if note := weights_note(sessions):
        text += (
            " The published networks started from ImageNet's weights, ours from others, so the differences are not "
            f"of the training alone. {note}"
        )
    return [
        Prose(text),
        frame_table(
            frame,
            "published",
            captioned(sessions, caption + spread_note(sessions)),
            {"Difference": signed},
            right=("Ours, augmented", "Ours, clean"),
            data=table,
        ),
    ]


def _papers(sessions: Sequence[Session]) -> list[Session]:
    """Those of the sessions by which the paper is judged."""
    judging = [id(run) for seeds in paper_sessions(all_runs(sessions)).values() for run in seeds.values()]
    return [session for session in sessions if any(id(run) in judging for run in session.runs)]


# ---- the claims


def claims_part(sessions: Sequence[Session], findings: Sequence[Finding]) -> list[Part]:
    """Each claim, its measure and its verdicts."""
    table = findings_table(findings)
    own = _papers(sessions)
    published = table["evidence"] == PUBLISHED
    claims = pd.DataFrame(
        {
            "": table["key"],
            "Claim": table["claim"],
            "In the course report's words": table["quotation"],
            "Range that supports it": table["claimed"],
        }
    )[published]
    shown = pd.DataFrame(
        {
            "": table["key"],
            "Evidence": table["evidence"].map(EVIDENCE),
            "Value [95 % interval]": table["result"],
            "Verdict": table["verdict"].where(published, table["holm_verdict"]).where(table["value"].notna(), "–"),
            "What would decide": table["would_decide"],
        }
    )
    text = (
        r"Table \ref{tab:claims} quotes what the course report claims, with the range of a measure that supports "
        r"each claim; Table \ref{tab:measures} defines the measures. Table \ref{tab:verdicts} and Figure "
        rf"\ref{{fig:claims}} judge each by the published tables and by our runs. {describe_draws(own)}"
    )
    ranges = (
        "The course report gives no numbers for its words. Small is a mean step of at most "
        f"{SMALL_STEP:.2f} times that of a fixed network, half of whose variance is then the protocol's; slight is "
        f"up to {SLIGHT:g}, a 50 % increase of the error rate of .08; approximately double is {ABOUT_DOUBLE[0]:g} to "
        f"{ABOUT_DOUBLE[1]:g}, nearer to two than to one or three."
    )
    return [
        Prose(text),
        Prose(ranges),
        frame_table(claims, "claims", "The claims of the course report, and the ranges that support them."),
        frame_table(
            _measures_table(table),
            "measures",
            r"The measures of the claims of Table \ref{tab:claims}, and on which validation each is taken.",
        ),
        frame_table(
            shown,
            "verdicts",
            captioned(
                own, r"The claims of Table \ref{tab:claims}: value, 95 % interval, verdict after Holm's correction."
            ),
            data=table,
        ),
        Figure(
            claims_figure(table),
            "claims",
            captioned(own, r"The claims of Table \ref{tab:claims}; shaded is the range that supports each."),
            width=1.0,
        ),
    ]


def _measures_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row a measure: of which claims, and of which evidence where that is one alone."""
    rows = []
    for measure, group in table.groupby("measure", sort=False):
        keys = ", ".join(group["key"].drop_duplicates())
        evidences = group["evidence"].unique()
        of = keys if len(evidences) > 1 else f"{keys} ({EVIDENCE[evidences[0]]})"
        rows.append({"Of": of, "Measure": measure, "Taken on": group["protocol"].iloc[0]})
    return pd.DataFrame(rows)


def summarize(findings: Sequence[Finding]) -> str:
    """How many claims each evidence decides, and which, in a sentence."""
    said = []
    for evidence, name in SOURCES.items():
        of = {
            verdict: [quoted(each) for each in findings if (each.evidence, each.verdict) == (evidence, verdict)]
            for verdict in VERBS
        }
        parts = [
            f"{VERBS[verdict]} {len(of[verdict])} ({'; '.join(of[verdict])})" for verdict in DECIDED if of[verdict]
        ]
        if parts:
            said.append(f"{name} {', '.join(parts)} and leave {len(of[UNDECIDED])} undecided")
        else:
            said.append(f"{name} decide none")
    claims = len({each.claim.key for each in findings})
    return f"Of the {claims} claims of the course report {'; '.join(said)}."


def quoted(finding: Finding) -> str:
    """A claim as a part of a sentence, with what the correction says of it."""
    correction = ", though not after correction" if finding.corrected.endswith(NOT_AFTER_CORRECTION) else ""
    return f"“{finding.claim.paper.claim}”{correction}"


# ---- why the published curve jumps


def noise_part(sessions: Sequence[Session]) -> list[Part]:
    """One fixed network, evaluated again and again under the paper's protocol."""
    run = sessions[0].runs[0]
    if len(run.repeats) < 3 or len(set(run.repeats)) < 2 or not is_of_papers_photos(sessions):
        return []
    table = noise(run.repeats, run.info.split.validation)
    table["of_binomial"] = table["sd"] / table["binomial_sd"]
    late = {
        name: each.loc[each["epoch"] >= 14, "val_aug_acc"].to_numpy() for name, each in published_tables().items()
    }
    ours = table.loc["repeated evaluation"]
    published = table.drop(index="repeated evaluation")
    ratios = _scatter_ratios(ours, published)
    text = (
        "The published validation accuracy still jumps from epoch to epoch when the learning rate is 1e-5 and the "
        f"network hardly changes. We took the network of {plain(run.name)} after its last epoch, kept it fixed, and "
        f"evaluated it {len(run.repeats)} times, each time with new random augmentations of the same validation "
        f"pictures. Its accuracy scatters with a standard deviation of {ours['sd']:.4f} (95 % interval "
        f"{ours['sd_low']:.4f} to {ours['sd_high']:.4f}); that of the published accuracies from epoch 14 on is "
        f"{', '.join(f'{value:.4f}' for value in published['sd'])} in the course report's three sessions "
        r"(Table \ref{tab:noise}, Figure \ref{fig:noise}). "
        "Scatter depends on the accuracy and on the number of pictures; so each is held against its own binomial "
        "standard deviation, that of drawing new pictures each time. "
        f"{_noise_verdict(ratios)}"
    )
    frame = pd.DataFrame(
        {
            "Accuracies of": [*(f"{name}, published" for name in published.index), f"{run.name}, repeated"],
            "Number": table["evaluations"].to_numpy(),
            "Mean": table["mean"].to_numpy(),
            "SD": table["sd"].to_numpy(),
            "Mean step": table["mean_step"].to_numpy(),
            "SD / binomial SD": table["of_binomial"].to_numpy(),
        }
    )
    formats = {"SD": ".4f", "Mean step": ".4f", "SD / binomial SD": ".2f"}
    caption = (
        "Scatter of augmented validation accuracy: published, epochs 14 to 19, and one fixed network of ours, "
        "evaluated anew each time."
    )
    columns = (
        " SD: standard deviation; mean step: mean absolute change from one to the next; binomial SD: that of drawing "
        "new pictures each time."
    )
    return [
        Prose("## Do the published curves jump more than their protocol?"),
        Prose(text),
        Figure(figures.noise_figure(late, run.repeats), "noise", captioned(sessions[:1], caption)),
        frame_table(
            frame,
            "noise",
            captioned(sessions[:1], caption + columns),
            formats,
            data=table.join(ratios).reset_index(drop=True).assign(of=frame["Accuracies of"]),
        ),
    ]


def _scatter_ratios(ours: pd.Series, published: pd.DataFrame) -> pd.DataFrame:
    """Each published scatter, as a share of its binomial one, over that of the fixed network; intervals by F."""
    ratios = published["of_binomial"] / ours["of_binomial"]
    freedoms = published["evaluations"] - 1, ours["evaluations"] - 1
    low, high = (ratios / np.sqrt(stats.f.ppf(tail, *freedoms)) for tail in (0.975, 0.025))
    return pd.DataFrame({"ratio": ratios, "ratio_low": low, "ratio_high": high})


def _noise_verdict(ratios: pd.DataFrame) -> str:
    said = ", ".join(format_interval(*row, ".2f") for row in ratios.itertuples(index=False))
    more = [plain(name) for name, low in ratios["ratio_low"].items() if low > 1]
    return (
        f"Relative to that, the published sessions scatter {said} times as much as the fixed network (95 % "
        "intervals, of normal values). "
        + (
            f"{' and '.join(more)} jumped more than the protocol alone makes this network jump."
            if more
            else "None is shown to have jumped more than the protocol alone makes this network jump."
        )
    )


# ---- in short


def abstract(sessions: Sequence[Session], findings: Sequence[Finding]) -> str:
    """What was found, in a few sentences: the accuracies, the verdicts, the protocol's own scatter."""
    runs = all_runs(sessions)
    said = [
        f"In {len(sessions)} training session{'s' if len(sessions) > 1 else ''}"
        + (f" of {len(runs)} runs in all" if len(runs) > len(sessions) else "")
        + f" on {sessions[0].info.dataset.photos:,} pictures the accuracy after the last epoch is "
        f"{_last(sessions, 'clean')} on clean validation pictures, and {_last(sessions, 'augmented')} on "
        "pictures augmented like those for training, as the course report measured.",
        summarize(findings),
        *_scope(sessions),
    ]
    repeats = sessions[0].runs[0].repeats
    if len(repeats) > 1:
        said.append(
            "The accuracy of one fixed network scatters under the course report's protocol with a standard deviation "
            f"of {pd.Series(repeats).std():.4f} from one evaluation to the next."
        )
    return " ".join(said)


def _last(sessions: Sequence[Session], protocol: str) -> str:
    """Each session's last accuracy; of augmented photos the mean of the repeated evaluations with their scatter."""
    table = headline(sessions)
    spread = table["augmented_sd"] if protocol == "augmented" else [np.nan] * len(table)
    numbers = [format_mean_sd(*pair) for pair in zip(table[protocol], spread, strict=True)]
    return ", ".join(f"{number} ({plain(name)})" for number, name in zip(numbers, table["session"], strict=True))


def conclusion(sessions: Sequence[Session], findings: Sequence[Finding]) -> str:
    """The claims, put together by what the two evidences say of them."""
    by_key = {(each.claim.key, each.evidence): each for each in findings}
    groups: dict[str, list[str]] = {}
    for claim in CLAIMS:
        own = by_key[claim.key, OURS]
        heading = _by_both(by_key[claim.key, PUBLISHED].verdict, own.verdict)
        groups.setdefault(heading, []).append(quoted(own))
    sentences = [f"{heading}: {'; '.join(statements)}." for heading, statements in groups.items()]
    return " ".join([*_reservation(sessions), *sentences, *_scope(sessions)])


def _reservation(sessions: Sequence[Session]) -> list[str]:
    """Of what our sessions speak, where that is not the paper's photos and weights."""
    own = _papers(sessions)
    if not own or (is_of_papers_photos(own) and not weights_note(own)):
        return []
    return [
        f"Our sessions are of {describe_task(own[0])} and start from {describe_start(own[0])}: what they support or "
        "speak against holds for these."
    ]


def _scope(sessions: Sequence[Session]) -> list[str]:
    """What so few seeds can't tell."""
    if min((len(each.runs) for each in _papers(sessions)), default=MIN_SEEDS) >= MIN_SEEDS:
        return []
    return [f"With fewer than {MIN_SEEDS} seeds of each session this speaks of these runs, not of the method."]


def _by_both(published: str, ours: str) -> str:
    if published == ours:
        return f"The published tables and our sessions both {VERBS[ours]}"
    return f"The published tables {VERBS[published]}, and our sessions {VERBS[ours]}"
