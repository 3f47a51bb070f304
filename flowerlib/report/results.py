"""What the sessions' files say, as tables of numbers: one data frame for each table or figure of the report.

Each has a column ``label``, the session's name for readers. Accuracies are fractions, times are in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats

from flowerlib.calibration import calibration_error
from flowerlib.data.duplicates import across_split, leaked, under_two_labels
from flowerlib.data.photos import paper_fingerprint
from flowerlib.experiment import Experiment
from flowerlib.report.claims import paper_sessions
from flowerlib.report.curves import scatter
from flowerlib.report.grouping import Session
from flowerlib.report.measures import FINAL_ACCURACY, evaluate
from flowerlib.report.paper.published import LATE, VALIDATION_PHOTOS, published_tables
from flowerlib.report.phrases import MISSING, decimal, interval, label, listing, network, whole
from flowerlib.report.statistics import (
    ALPHA,
    accuracy,
    accuracy_without,
    class_table,
    holm,
    outcomes,
    wilson,
)
from flowerlib.runs import Run

# Tables 1-3 follow the paper's protocol: its validation photos were augmented
PAPER_METRICS = {
    "train_loss": "Train loss",
    "train_acc": "Train acc",
    "val_aug_loss": "Val loss",
    "val_aug_acc": "Val acc",
}
MOST_LISTED = 25  # rows of a table that must fit a page
MOST_SECTIONS = 8  # sessions that have one each


def all_runs(sessions: Sequence[Session]) -> list[Run]:
    """Every seed of every session."""
    return [run for session in sessions for run in session.runs]


def is_of_papers_photos(sessions: Sequence[Session]) -> bool:
    """Whether the runs are on the paper's photos, all of them and no others, whatever the folder is called."""
    return sessions[0].info.dataset.fingerprint == paper_fingerprint()


def published_of(session: Session, sessions: Sequence[Session]) -> pd.DataFrame | None:
    """The paper's table for one of its sessions, on its photos; None for others."""
    if not is_of_papers_photos(sessions):
        return None
    for name, runs in paper_sessions(all_runs(sessions)).items():
        if any(run is own for run in runs.values() for own in session.runs):
            return published_tables()[name]
    return None


# ---- sessions


def summary(sessions: Sequence[Session]) -> pd.DataFrame:
    """Accuracies after the last epoch, and times.

    Returns:
        A row a session, indexed by its name (``session``): ``label``; ``seeds``; ``published`` (augmented,
        NaN where it is none of the paper's sessions); ``train_acc``; ``clean`` with ``clean_low`` and
        ``clean_high`` (Wilson; NaN for several seeds); ``augmented`` (mean of the repeated evaluations, over
        the seeds), ``augmented_sd`` (of one evaluation, of the first seed), ``evaluations`` (of each seed; 0:
        ``augmented`` is the last epoch's one evaluation); ``clean_sd`` and ``augmented_seed_sd`` (over seeds;
        NaN for one); ``test`` (best.pt on photos set aside, mean over seeds; NaN without) with ``test_low``
        and ``test_high`` (Wilson; NaN for several seeds); ``balanced`` and ``smallest``
        (clean accuracy, its mean over classes and that of the class with the fewest photos);
        ``train_seconds`` and ``val_seconds`` (totals, means over seeds); ``epoch_seconds`` (median epoch of
        training); ``time_ratio`` (of it, to the first session's; NaN on another machine).
    """
    table = pd.DataFrame(
        {"label": [label(each, sessions) for each in sessions], "seeds": [len(each.runs) for each in sessions]},
        index=pd.Index([each.name for each in sessions], name="session"),
    )
    published = [published_of(each, sessions) for each in sessions]
    table["published"] = [np.nan if each is None else each["val_aug_acc"].iloc[-1] for each in published]
    table["train_acc"] = [each.last("train_acc").mean() for each in sessions]
    table["clean"] = [each.last("val_acc").mean() for each in sessions]
    table["clean_sd"] = [each.last("val_acc").std() for each in sessions]
    intervals = pd.DataFrame([accuracy(each.runs[0].predictions)[1:] for each in sessions], index=table.index)
    table[["clean_low", "clean_high"]] = intervals.where(table["seeds"] == 1)
    repeated = [
        [np.mean(run.repeats or run.metrics["val_aug_acc"].iloc[-1]) for run in each.runs] for each in sessions
    ]
    table["augmented"] = [np.mean(each) for each in repeated]
    table["augmented_sd"] = [pd.Series(each.runs[0].repeats, dtype=float).std() for each in sessions]
    table["augmented_seed_sd"] = [pd.Series(each).std() for each in repeated]
    table["evaluations"] = [len(each.runs[0].repeats) for each in sessions]
    table[["test", "test_low", "test_high"]] = [_test_score(each) for each in sessions]
    table[["balanced", "smallest"]] = [_by_class(each) for each in sessions]
    for column in ("train_seconds", "val_seconds"):
        table[column] = [each.metrics[column].sum() for each in sessions]
    table["epoch_seconds"] = [each.metrics["train_seconds"].median() for each in sessions]
    machines = [(each.info.device.type, each.info.device.name, each.info.device.threads) for each in sessions]
    ratio = table["epoch_seconds"] / table["epoch_seconds"].iloc[0]
    table["time_ratio"] = ratio.where([machine == machines[0] for machine in machines])
    return table


def _test_score(session: Session) -> tuple[float, float, float]:
    tests = [run.info.test for run in session.runs]
    if None in tests:
        return np.nan, np.nan, np.nan
    if len(tests) == 1:
        return wilson(tests[0].correct, tests[0].photos)
    return np.mean([test.correct / test.photos for test in tests]), np.nan, np.nan


def _by_class(session: Session) -> tuple[float, float]:
    recalls = [class_table(run.predictions)["recall"] for run in session.runs]
    smallest = smallest_class(session)
    return np.mean([each.mean() for each in recalls]), np.mean([each[smallest] for each in recalls])


def smallest_class(session: Session) -> str:
    """The class with the fewest photos."""
    classes = session.info.dataset.classes
    return min(classes, key=classes.get)


def shown_summary(table: pd.DataFrame, unequal: bool = False) -> pd.DataFrame:
    """`summary` as it is printed; where classes are unequal, with what accuracy hides.

    The test, on photos held out from every choice, stands first.
    """
    seeds = table["seeds"].max() > 1
    clean = [mean_sd_text(row.clean, row.clean_sd) for row in table.itertuples()]
    once = [interval(row.clean, row.clean_low, row.clean_high) for row in table.itertuples()]
    scatter = table["augmented_seed_sd"] if seeds else table["augmented_sd"]
    columns = {
        "Session": table["label"],
        "Seeds": table["seeds"] if seeds else None,
        "Test [95 % interval]": (
            [_interval_if_any(row.test, row.test_low, row.test_high) for row in table.itertuples()]
            if table["test"].notna().any()
            else None
        ),
        "Published": table["published"].map(decimal) if table["published"].notna().any() else None,
        "Augmented": [mean_sd_text(*pair) for pair in zip(table["augmented"], scatter, strict=True)],
        "Clean" if seeds else "Clean [95 % interval]": clean if seeds else once,
        "Balanced": table["balanced"].map(decimal) if unequal else None,
        "Smallest class": table["smallest"].map(decimal) if unequal else None,
    }
    shown = pd.DataFrame({name: column for name, column in columns.items() if column is not None})
    return shown.reset_index(drop=True)


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """Clean accuracies in `summary`, as `flowerlib.figures.plot_intervals` takes them.

    Returns:
        A row a session: ``name``, ``value``, ``low``, ``high`` (Wilson's of one seed, Student's over several).
    """
    half = scipy.stats.t.ppf(1 - ALPHA / 2, table["seeds"] - 1) * table["clean_sd"] / np.sqrt(table["seeds"])
    return pd.DataFrame(
        {
            "name": table["label"],
            "value": table["clean"],
            "low": table["clean_low"].fillna(table["clean"] - half),
            "high": table["clean_high"].fillna(table["clean"] + half),
        }
    ).reset_index(drop=True)


def _interval_if_any(value: float, low: float, high: float) -> str:
    return decimal(value) if np.isnan(low) else interval(value, low, high)


def mean_sd_text(mean: float, deviation: float) -> str:
    """``.912 ± .004``, or ``.912`` where there is no deviation."""
    return decimal(mean) if np.isnan(deviation) else f"{decimal(mean)} ± {decimal(deviation)}"


def shown_durations(table: pd.DataFrame) -> pd.DataFrame:
    """The times in `summary` as they are printed."""
    return pd.DataFrame(
        {
            "Session": table["label"],
            "Training (s)": table["train_seconds"].map(whole),
            "Validation (s)": table["val_seconds"].map(whole),
            "Median epoch (s)": [decimal(value, 1) for value in table["epoch_seconds"]],
            "Ratio of medians": [decimal(value, 2) for value in table["time_ratio"]],
        }
    ).reset_index(drop=True)


# ---- one network's predictions


def overall(run: Run) -> pd.DataFrame:
    """Accuracy and calibration on clean validation photos.

    Returns:
        Rows ``accuracy``, ``confidence`` (mean), ``calibration error``: ``value``, ``low``, ``high``. Of best.pt,
        where run.json has them: ``best: temperature``, ``best: error before`` and ``best: error after``.
    """
    confidence, correct = (outcomes(run.predictions)[name].to_numpy() for name in ("confidence", "correct"))
    numbers = {"confidence": confidence.mean(), "calibration error": calibration_error(confidence, correct)}
    if best := run.info.calibration:
        numbers["best: temperature"] = best.temperature
        numbers |= {"best: error before": best.error_before, "best: error after": best.error_after}
    rows = {"accuracy": accuracy(run.predictions)}
    rows |= {name: (value, np.nan, np.nan) for name, value in numbers.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def shown_classes(run: Run) -> pd.DataFrame:
    """Precision and recall as they are printed; of many classes those with the lowest recall."""
    table = class_table(run.predictions)
    if len(table) > MOST_LISTED:
        table = table.sort_values("recall", kind="stable").head(MOST_LISTED)
    return pd.DataFrame(
        {
            "Class": table.index,
            "Photos": table["labelled"].map(whole),
            **{
                f"{name.capitalize()} [95 % interval]": [
                    interval(*row) for row in table[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
                ]
                for name in ("precision", "recall")
            },
        }
    ).reset_index(drop=True)


def duplicates(run: Run, pairs: pd.DataFrame) -> pd.DataFrame:
    """What near-duplicates do to the clean accuracy.

    Returns:
        Rows ``all``, ``without`` (the photos concerned) and ``alone`` (those only): ``photos``, ``correct``,
        ``accuracy``, ``low``, ``high``.
    """
    return accuracy_without(run.predictions, leaked(pairs, run.sides))


def pair_counts(run: Run, pairs: pd.DataFrame) -> pd.Series:
    """Near-duplicates: ``pairs``, ``identical``, ``contradictory`` (under two labels), ``across`` (the split)."""
    return pd.Series(
        {
            "pairs": len(pairs),
            "identical": int((pairs["kind"] == "identical").sum()),
            "contradictory": len(under_two_labels(pairs)),
            "across": len(across_split(pairs, run.sides)),
        }
    )


# ---- the method with parts left out


def ablation_table(ablations: Sequence[Session]) -> pd.DataFrame:
    """Each ablation against the first of them, the full method.

    Returns:
        A row a session: ``session``, ``seeds``, ``clean`` and ``augmented`` (means over seeds) with ``clean_sd`` and
        ``augmented_sd``, ``difference`` (clean, minus the first) with ``low`` and ``high``, ``p``, ``holm_p``.
    """
    base, *others = ablations
    rows = []
    for session in ablations:
        clean, augmented = session.last("val_acc"), session.last("val_aug_acc")
        row = {"session": session.name, "seeds": len(session.runs)}
        row |= {"clean": clean.mean(), "clean_sd": clean.std()}
        rows.append(row | {"augmented": augmented.mean(), "augmented_sd": augmented.std()})
    table = pd.DataFrame(rows)
    for place, session in enumerate(others, 1):
        groups = [dict(zip(each.seeds, each.runs, strict=True)) for each in (base, session)]
        estimate = evaluate(FINAL_ACCURACY, groups, (base.name, session.name)).estimate
        table.loc[place, ["difference", "low", "high", "p"]] = (
            estimate.value, estimate.low, estimate.high, estimate.p(0.0)
        )  # fmt: skip
    table.loc[1:, "holm_p"] = holm(table.loc[1:, "p"])
    return table


def shown_ablations(table: pd.DataFrame) -> pd.DataFrame:
    """`ablation_table` as it is printed."""
    return pd.DataFrame(
        {
            "Session": ["full method", *table["session"].iloc[1:].str.replace("-", " ")],
            "Clean": [mean_sd_text(row.clean, row.clean_sd) for row in table.itertuples()],
            "Clean − full method [95 % interval]": [
                interval(row.difference, row.low, row.high, signed=True) for row in table.itertuples()
            ],
        }
    )


def ablation_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """What `flowerlib.figures.plot_intervals` takes: ``name``, ``value``, ``low``, ``high``."""
    shown = table.dropna(subset="difference")
    return shown.rename(columns={"difference": "value"}).assign(name=shown["session"].str.replace("-", " "))


def corrected_ablations(table: pd.DataFrame) -> str:
    """The ablations that differ from the full method after Holm's correction, with their differences."""
    rows = table[table["holm_p"] < ALPHA]
    told = [
        f"{row.session.replace('-', ' ')} {interval(row.difference, row.low, row.high, signed=True)}"
        for row in rows.itertuples()
    ]
    return listing(told) if told else "none"


# ---- beside others


def curves(session: Session, sessions: Sequence[Session]) -> dict[str, dict[str, pd.DataFrame]]:
    """What `flowerlib.figures.training_figure` takes: ours and published of one session.

    A session of another network stands beside the first session, in a row for each of the two sources.
    """
    first = sessions[0]
    shown = [session] if session.info.settings.model == first.info.settings.model else [first, session]
    known = {label(each, sessions): published_of(each, sessions) for each in shown}
    published = {name: table for name, table in known.items() if table is not None}
    ours = {label(each, sessions): each.metrics for each in shown}
    if len(shown) == 1:
        (table,) = published.values() or (None,)
        return {"": {"ours": session.metrics} | ({} if table is None else {"published": table})}
    return ({"Published": published} if published else {}) | {"Ours" if published else "": ours}


def noise(evaluations: Sequence[float], photos: int) -> pd.DataFrame:
    """The published late fluctuation beside that of one network of ours, evaluated again and again.

    From epoch 14 on the paper's learning rate is 1e-5 and its networks hardly change. Where its accuracies
    scatter no more than those of one fixed network under new random augmentations, the scatter is its
    validation's.

    Args:
        evaluations: augmented validation accuracies of one fixed network, each of another random augmentation.
        photos: on how many photos each.

    Returns:
        A row a published session, and a last row ``repeated evaluation``, with the columns of
        `flowerlib.report.curves.scatter`, and ``of_binomial``.
    """
    rows = {
        name: scatter(table.loc[table["epoch"] >= LATE, "val_aug_acc"], VALIDATION_PHOTOS)
        for name, table in published_tables().items()
    } | {"repeated evaluation": scatter(evaluations, photos)}
    table = pd.DataFrame(rows).T.astype({"evaluations": int})
    return table.assign(of_binomial=table["sd"] / table["binomial_sd"])


def shown_others(table: pd.DataFrame) -> pd.DataFrame:
    """`flowerlib.report.paper.others.others_table` as it is printed."""
    papers = table["source"] == "the paper"
    return pd.DataFrame(
        {
            "Run": table["run"].where(~papers, "the course report"),
            "Network": table["model"].map(network),
            "Late accuracy": [mean_sd_text(*pair) for pair in zip(table["late_acc"], table["late_sd"], strict=True)],
            "Seconds": table["seconds"].map(whole),
            "What differs": [
                "; ".join(filter(None, [f"batch {row.batch_size}" if row.batch_size != 32 else "", _rate(row)]))
                or MISSING
                for row in table.itertuples()
            ],
        }
    )


def _rate(row: tuple) -> str:
    rate = f"learning rate {decimal(row.learning_rate)}" if row.learning_rate != Experiment().learning_rate else ""
    return "; ".join(filter(None, [rate, row.augmentation]))


def shown_noise(table: pd.DataFrame) -> pd.DataFrame:
    """`noise` as it is printed."""
    return pd.DataFrame(
        {
            "Accuracies": [
                *(f"{name}, published, late" for name in table.index[:-1]),
                "one network of ours, repeated",
            ],
            "Number": table["evaluations"].map(whole),
            "Mean": table["mean"].map(decimal),
            "SD": [decimal(value, 4) for value in table["sd"]],
            "Mean step": [decimal(value, 4) for value in table["mean_step"]],
            "SD / binomial SD": [decimal(value, 2) for value in table["of_binomial"]],
        }
    ).reset_index(drop=True)
