"""Our numbers beside the published ones, and beside those of others who ran the same assignment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from flowerlib.experiment import Experiment
from flowerlib.report.curves import scatter
from flowerlib.report.grouping import Session
from flowerlib.report.paper.others import others_index, others_tables
from flowerlib.report.paper.published import SESSIONS, VALIDATION_PHOTOS, published_tables
from flowerlib.report.statistics import accuracy

LATE = 2 * Experiment().lr_step  # the first epoch after the second drop of the learning rate, at the paper's settings


def noise(evaluations: Sequence[float], photos: int = VALIDATION_PHOTOS) -> pd.DataFrame:
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


# ---- accuracies after the last epoch


def headline(sessions: Sequence[Session]) -> pd.DataFrame:
    """Accuracies of the last networks under both protocols.

    Returns:
        A row a session: ``session``, ``seeds``; ``clean`` with ``clean_low`` and ``clean_high`` (Wilson; of the first
        seed); ``augmented`` (mean of the repeated evaluations, over the seeds), ``augmented_sd`` (of one evaluation,
        of the first seed), ``evaluations`` (of each seed; 0: ``augmented`` is the last epoch's one evaluation).
    """
    rows = []
    for session in sessions:
        first = session.runs[0]
        value, low, high = accuracy(first.predictions)
        repeats = [run.repeats or (run.metrics["val_aug_acc"].iloc[-1],) for run in session.runs]
        rows.append(
            {
                "session": session.name,
                "seeds": len(session.runs),
                "clean": value,
                "clean_low": low,
                "clean_high": high,
                "augmented": float(np.mean([np.mean(each) for each in repeats])),
                "augmented_sd": float(np.std(first.repeats, ddof=1)) if len(first.repeats) > 1 else math.nan,
                "evaluations": len(first.repeats),
            }
        )
    return pd.DataFrame(rows)


# ---- others who ran the same assignment


def others_table() -> pd.DataFrame:
    """The published sessions among others' runs, by late accuracy under the paper's protocol.

    Returns:
        A row a run, the highest first: ``run``, ``source`` (``the paper`` or ``others``), ``model``, ``batch_size``,
        ``learning_rate``, ``augmentation``, ``seconds``, ``late_acc`` (mean from epoch 14 on), ``late_sd`` (of its
        epochs), ``best_acc``.
    """
    settings = Experiment()
    papers = [
        {"run": name, "source": "the paper", "learning_rate": settings.learning_rate, "augmentation": "", **own}
        for name, own in SESSIONS.items()
    ]
    table = pd.DataFrame([*papers, *others_index().assign(source="others").to_dict("records")])
    curves = {**published_tables(), **others_tables()}
    late = {name: each.loc[each["epoch"] >= LATE, "val_aug_acc"] for name, each in curves.items()}
    table["late_acc"] = [late[name].mean() for name in table["run"]]
    table["late_sd"] = [late[name].std() for name in table["run"]]
    table["best_acc"] = [curves[name]["val_aug_acc"].max() for name in table["run"]]
    columns = ["run", "source", "model", "batch_size", "learning_rate", "augmentation", "seconds"]
    table = table[[*columns, "late_acc", "late_sd", "best_acc"]]
    return table.sort_values("late_acc", ascending=False, kind="stable").reset_index(drop=True)


def others_numbers() -> dict[str, float]:
    """What others' runs say of the paper's comparisons.

    Returns:
        ``students``: with a ResNet-18; ``lowest``, ``highest`` and ``sd`` of their late accuracies, ``spread`` from
        the lowest to the highest; ``deeper``: one student's ResNet-34 minus ResNet-18, late; ``deeper_time``: their
        times as a ratio; ``published_deeper``: the paper's ResNet-34 minus ResNet-18, late.
    """
    table = others_table().set_index("run")
    late, seconds = table["late_acc"], table["seconds"]
    eighteen = late[(table["source"] == "others") & (table["model"] == "resnet18")]
    return {
        "students": len(eighteen),
        "lowest": eighteen.min(),
        "highest": eighteen.max(),
        "spread": eighteen.max() - eighteen.min(),
        "sd": eighteen.std(),
        "deeper": late["E34"] - late["E18"],
        "deeper_time": seconds["E34"] / seconds["E18"],
        "published_deeper": late["resnet34-bs32"] - late["resnet18-bs32"],
    }
