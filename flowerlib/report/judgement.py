"""How the report judges the paper: beside its tables, claim by claim, and its protocol's noise."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy import stats

from flowerlib import figures
from flowerlib.figures import SMALL, WIDTH, in_lines
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
from flowerlib.report.sections import Part, mean_sd, spread_note
from flowerlib.report.statistics import CONVERGED_WITHIN, format_interval, format_mean_sd
from flowerlib.report.tables import frame_table
from flowerlib.report.verdicts import (
    ABOUT_DOUBLE,
    NOT_SUPPORTED,
    OURS,
    PUBLISHED,
    SLIGHT,
    SUPPORTED,
    UNDECIDED,
    Claim,
    Finding,
    beside_published,
    findings_table,
    judge_all,
    noise,
    paper_sessions,
)
from flowerlib.runs import Run, Session

DECIDED = (SUPPORTED, NOT_SUPPORTED)
EVIDENCE = {PUBLISHED: "published", OURS: "our runs"}
SOURCES = {PUBLISHED: "the published tables", OURS: "our sessions"}
VERBS = {SUPPORTED: "support", NOT_SUPPORTED: "speak against", UNDECIDED: "leave undecided"}


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
    letters = {key: chr(ord("a") + place) for place, key in enumerate(table["key"].drop_duplicates())}
    claims = pd.DataFrame(
        {"": table["key"].map(letters), "Claim": table["claim"], "Asked of its measure": table["claimed"]}
    )[table["evidence"] == PUBLISHED]
    verdicts = pd.DataFrame(
        {
            "": table["key"].map(letters),
            "Evidence": table["evidence"].map(EVIDENCE),
            "Value [95 % interval]": table["result"],
            "Verdict": table["verdict"],
        }
    )
    pairs = [letters[each.claim.key] for each in findings if each.evidence == OURS and len(each.claim.sessions) > 1]
    text = (
        r"Table \ref{tab:claims} lists what the course report concludes, and in which range of a measure each would "
        r"hold; Table \ref{tab:measures} defines the measures. Where two sessions are compared "
        f"({', '.join(pairs)}), the value is that of batch size 64, or of ResNet-34, minus that of the first "
        "session; of times it is the ratio. A conclusion is supported if the measure's whole interval lies in its "
        r"range, not supported if none of it does, and otherwise not decided by this evidence. Table "
        r"\ref{tab:verdicts} and Figure \ref{fig:claims} judge each twice: by the published tables, and by our own "
        f"sessions. {describe_draws(own)}"
    )
    ranges = (
        f"The course report gives no numbers for its words. We take {CONVERGED_WITHIN:g} for small-scale, which is "
        "half the width of the 95 % interval of an accuracy of .92 on its 570 pictures; up to "
        f"{SLIGHT:g} for slight, half as many mistakes again as at .92; and {ABOUT_DOUBLE[0]:g} to "
        f"{ABOUT_DOUBLE[1]:g} for approximately double, nearer to two than to one or three."
    )
    verdict_caption = (
        r"The conclusions of Table \ref{tab:claims}: value of the measure, its 95 % interval, and the verdict; a "
        "dash where the tables can't give the value."
    )
    figure_caption = (
        r"The conclusions of Table \ref{tab:claims}: their measures with 95 % intervals; shaded is where a "
        "conclusion holds."
    )
    return [
        Prose(text),
        Prose(ranges),
        frame_table(claims, "claims", "The conclusions of the course report, and what each asks of its measure."),
        frame_table(
            _measures_table(table, letters),
            "measures",
            r"The measures of the conclusions of Table \ref{tab:claims}, and on which validation each is taken.",
        ),
        frame_table(verdicts, "verdicts", captioned(own, verdict_caption), data=table),
        Figure(claims_figure(findings), "claims", captioned(own, figure_caption), width=1.0),
        *(Prose(_notes(table, letters, evidence)) for evidence in EVIDENCE),
    ]


def _measures_table(table: pd.DataFrame, letters: dict[str, str]) -> pd.DataFrame:
    """A row a measure: of which claims, and of which evidence where that is one alone."""
    rows = []
    for measure, group in table.groupby("measure", sort=False):
        keys = ", ".join(letters[key] for key in group["key"].drop_duplicates())
        (*_, evidence), several = group["evidence"], group["evidence"].nunique() > 1
        of = keys if several else f"{keys} ({EVIDENCE[evidence]})"
        rows.append({"Of": of, "Measure": measure, "Taken on": group["protocol"].iloc[0]})
    return pd.DataFrame(rows)


def summarize(findings: Sequence[Finding]) -> str:
    """How many claims each evidence decides, and which, in a sentence."""
    said = []
    for evidence, name in SOURCES.items():
        of = {
            verdict: [quoted(each.claim) for each in findings if (each.evidence, each.verdict) == (evidence, verdict)]
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
    return f"Of the {claims} conclusions of the course report {'; '.join(said)}."


def quoted(claim: Claim) -> str:
    """A claim as a part of a sentence."""
    return f"“{claim.statement.rstrip('.')}”"


def _notes(table: pd.DataFrame, letters: dict[str, str], evidence: str) -> str:
    """What each value rests on."""
    rows = table[table["evidence"] == evidence]
    notes = " ".join(f"({letters[row.key]}) {plain(row.note)}" for row in rows.itertuples())
    return f"*What the values of {SOURCES[evidence]} rest on.* {notes}"


def claims_figure(findings: Sequence[Finding]) -> MatplotlibFigure:
    """A panel a claim: its values with intervals, and in grey the range in which the claim wants them.

    Each panel has a scale of its own: the claims are about epochs, accuracies and ratios.

    Args:
        findings: of `flowerlib.report.verdicts.judge_all`.
    """
    claims = {finding.claim.key: [] for finding in findings}
    for finding in findings:
        claims[finding.claim.key].append(finding)
    rows = -(-len(claims) // 2)
    figure, axes = plt.subplots(rows, 2, squeeze=False, figsize=(WIDTH, 0.5 + 1.55 * rows), layout="constrained")
    for ax in list(axes.flat)[len(claims) :]:
        ax.remove()
    for ax, group in zip(axes.flat, claims.values(), strict=False):
        _plot_claim(group, ax)
    figure.legend(handles=_claim_legend(), loc="outside upper center", ncols=4)
    return figure


def _plot_claim(findings: Sequence[Finding], ax: Axes) -> None:
    claim = findings[0].claim
    numbers = [number for finding in findings for number in (finding.low, finding.high)] + list(claim.claimed)
    numbers = [number for number in numbers if isfinite(number)]
    low, high = min(numbers), max(numbers)
    margin = 0.08 * (high - low) or 1
    ax.set(xlim=(low - margin, high + margin), ylim=(len(findings) - 0.5, -0.5))
    ax.axvspan(*np.clip(claim.claimed, *ax.get_xlim()), color="0.88", linewidth=0)
    for row, finding in enumerate(findings):
        if isfinite(finding.value):
            ax.plot([finding.low, finding.high], [row, row], color="black", linestyle="-", marker="")
            ax.plot(finding.value, row, color="black", linestyle="", **_marker(finding.verdict))
        else:
            ax.text(
                0.02, row, "no evidence", transform=ax.get_yaxis_transform(), va="center", style="italic", size=SMALL
            )
    ax.set_yticks(range(len(findings)), [finding.evidence for finding in findings])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.tick_params(labelsize=SMALL)
    ax.set_title(in_lines(claim.statement, WIDTH / 2), fontsize=SMALL + 1, loc="left", x=-0.18)
    ax.set_xlabel(in_lines(_measured(findings), WIDTH / 2), fontsize=SMALL)


def _measured(findings: Sequence[Finding]) -> str:
    """What is measured; by evidence where that differs."""
    definitions = {finding.evidence: finding.measure.definition for finding in findings}
    if len(set(definitions.values())) > 1:
        said = "; ".join(f"{evidence}: {definition}" for evidence, definition in definitions.items())
    else:
        said = next(iter(definitions.values()))
    sessions = findings[0].claim.sessions
    return f"{said} ({' against '.join(reversed(sessions))})" if len(sessions) > 1 else said


def _marker(verdict: str) -> dict[str, object]:
    return {
        "marker": "X" if verdict == NOT_SUPPORTED else "o",
        "markersize": 6,
        "markerfacecolor": "black" if verdict in (SUPPORTED, NOT_SUPPORTED) else "white",
    }


def _claim_legend() -> list[Line2D | Patch]:
    markers = [
        Line2D([], [], color="black", linestyle="-", label=verdict, **_marker(verdict))
        for verdict in (SUPPORTED, NOT_SUPPORTED, UNDECIDED)
    ]
    return [Patch(color="0.88", label="claimed"), *markers]


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
        f"{_last(sessions, 'val_acc')} on clean validation pictures, and {_last(sessions, 'val_aug_acc')} on "
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


def _last(sessions: Sequence[Session], column: str) -> str:
    return ", ".join(f"{mean_sd(session.last(column))} ({plain(session.name)})" for session in sessions)


def conclusion(sessions: Sequence[Session], findings: Sequence[Finding]) -> str:
    """The claims, put together by what the two evidences say of them."""
    verdicts = {(each.claim.key, each.evidence): each.verdict for each in findings}
    groups: dict[str, list[str]] = {}
    for claim in dict.fromkeys(each.claim for each in findings):
        heading = _by_both(verdicts[claim.key, PUBLISHED], verdicts[claim.key, OURS])
        groups.setdefault(heading, []).append(quoted(claim))
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
