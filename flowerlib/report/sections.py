"""What the report says of the sessions: text, table and figure of each, their summary and their durations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import Any

import pandas as pd

from flowerlib.figures import session_figure
from flowerlib.report.beside import headline
from flowerlib.report.descriptions import captioned, describe_changes, describe_network
from flowerlib.report.display import Figure, Prose, Table, plain
from flowerlib.report.statistics import format_mean_sd
from flowerlib.report.tables import epoch_table, frame_table
from flowerlib.runs import Session

Part = Prose | Table | Figure

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

# Tables 1-3 and the comparisons follow the paper's protocol: its validation photos were augmented
PAPER_METRICS = {
    "train_loss": "Train loss",
    "train_acc": "Train acc",
    "val_aug_loss": "Val loss",
    "val_aug_acc": "Val acc",
}

ACCURACIES: Mapping[str, Callable[[pd.DataFrame], float]] = {
    "Clean, best": lambda metrics: metrics["val_acc"].max(),
    "Clean, last": lambda metrics: metrics["val_acc"].iloc[-1],
    "Augmented, best": lambda metrics: metrics["val_aug_acc"].max(),
    "Augmented, last": lambda metrics: metrics["val_aug_acc"].iloc[-1],
}


def session_parts(sessions: Sequence[Session], position: int) -> list[Part]:
    """What the report says and shows of one session, in the order of the paper's section 4.

    Args:
        sessions: all of them; the first is the one that the others are compared with.
        position: which one, from 0.
    """
    session, first = sessions[position], sessions[0]
    ordinal = ORDINALS[position] if position < len(ORDINALS) else "next"
    name, seeds = plain(session.name), describe_seeds(session)
    table = epoch_table(
        session.metrics,
        PAPER_METRICS,
        session.name,
        captioned(
            [session],
            f"Session {name}: training, and validation on augmented pictures, as in the course report{seeds}.",
        ),
        spread=session.spread,
    )
    caption = f"Session {name}: loss and accuracy over the epochs, validation under both protocols{seeds}."
    if session is first:
        text = f"The {ordinal} training session, {name}, trains {describe_network(session)}."
        curves = session_figure(session)
    else:
        text = (
            f"The {ordinal} training session, {name}, has {describe_changes(session, first)}; "
            "all else is as in the first."
        )
        curves = session_figure(session, first)
        caption += f" Below: its augmented validation and that of {plain(first.name)}."
    shown = [session] if session is first else [first, session]
    figure = Figure(curves, session.name, captioned(shown, caption), width=1.0)
    pointers = rf"Table \ref{{{table.label}}} lists its metrics, and Figure \ref{{{figure.label}}} shows them."
    return [Prose(f"{text} {pointers} {describe_result(session)}"), table, figure]


def describe_result(session: Session) -> str:
    """A session's validation accuracy under the paper's protocol, in one sentence."""
    course = _course(session)
    whose = "Its" if len(session.runs) == 1 else f"The mean curve over {len(session.runs)} seeds of its"
    text = (
        f"{whose} augmented validation accuracy is best after epoch {course['mean curve, best epoch']}, at "
        f"{course['mean curve, best']:.3f}, and {course['mean curve, last']:.3f} at the end"
    )
    if isnan(course["later half, mean step"]):
        return f"{text}."
    return (
        f"{text}; over the later half of the epochs it is {course['later half, mean']:.3f} on average and changes "
        f"by {course['later half, mean step']:.3f} from one epoch to the next."
    )


def describe_seeds(session: Session) -> str:
    """What a caption adds where several seeds stand behind a number."""
    if len(session.runs) == 1:
        return ""
    return f"; means and standard deviations of the seeds {', '.join(map(str, session.seeds))}"


def later_half(metrics: pd.DataFrame) -> pd.DataFrame:
    """The later half of the epochs: where the paper, at 20 epochs, calls the network converged."""
    return metrics.iloc[len(metrics) // 2 :]


def summary_table(sessions: Sequence[Session]) -> Table:
    """Validation accuracy of each session under both protocols, kept apart."""
    frame = pd.DataFrame(
        {"Session": session.name, "Seeds": len(session.runs)}
        | {name: mean_sd(session.over_seeds(number)) for name, number in ACCURACIES.items()}
        for session in sessions
    )
    caption = (
        "Validation accuracy: on clean pictures, and on augmented ones as the course report measured. Best: of each "
        "run's own best epoch, chosen by the pictures that measure it."
    )
    data = pd.DataFrame(map(_summary, sessions))
    return frame_table(
        frame, "summary", captioned(sessions, caption + spread_note(sessions)), right=ACCURACIES, data=data
    )


def _summary(session: Session) -> dict[str, Any]:
    """What is said of a session in text and summary, unrounded."""
    numbers = {name: session.over_seeds(number) for name, number in ACCURACIES.items()}
    return (
        {"session": session.name, "seeds": len(session.runs)}
        | {name: values.mean() for name, values in numbers.items()}
        | {f"{name}, sd over seeds": values.std() for name, values in numbers.items()}
        | _course(session)
        | {
            "Augmented, mean of the repeats": headline([session])["augmented"].iloc[0],
            "Augmented, sd of one fixed network": pd.Series(session.runs[0].repeats, dtype=float).std(),
        }
    )


def _course(session: Session) -> dict[str, float]:
    """How augmented validation accuracy goes: its mean curve, and its steps, which are smaller in a mean curve."""
    accuracy = session.metrics["val_aug_acc"]
    return {
        "mean curve, best epoch": session.metrics["epoch"][accuracy.idxmax()],
        "mean curve, best": accuracy.max(),
        "mean curve, last": accuracy.iloc[-1],
        "later half, mean": later_half(session.metrics)["val_aug_acc"].mean(),
        "later half, mean step": session.over_seeds(_late_step).mean(),  # NaN of one epoch
    }


def _late_step(metrics: pd.DataFrame) -> float:
    return later_half(metrics)["val_aug_acc"].diff().abs().mean()


def duration_table(sessions: Sequence[Session]) -> Table:
    """Seconds of training and of evaluation, and their ratio to the first session's."""
    seconds = pd.DataFrame(
        {
            "Session": session.name,
            "Training (s)": session.metrics["train_seconds"].sum(),
            "An epoch (s)": session.metrics["train_seconds"].mean(),
            "Validation (s)": session.metrics["val_seconds"].sum(),
        }
        for session in sessions
    )
    seconds["Training, relative"] = seconds["Training (s)"] / seconds["Training (s)"].iloc[0]
    formats = {"Training (s)": ".0f", "An epoch (s)": ".1f", "Validation (s)": ".0f", "Training, relative": ".2f"}
    caption = "Time of a session; validation is done twice an epoch, clean and augmented."
    if any(len(session.runs) > 1 for session in sessions):
        caption += " Means over the seeds."
    return frame_table(seconds, "durations", captioned(sessions, caption), formats)


def mean_sd(values: pd.Series) -> str:
    """A mean over seeds with its standard deviation, or the one value."""
    return format_mean_sd(values.mean(), values.std())


def spread_note(sessions: Sequence[Session]) -> str:
    """What a caption says of ± where there are several seeds."""
    return " Mean ± standard deviation over the seeds." if any(len(each.runs) > 1 for each in sessions) else ""
