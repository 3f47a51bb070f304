"""Others' runs of the same assignment, as their logs have them.

Five students published these logs in the GitHub organisation https://github.com/SYSUSZ-ECE371 in May 2025; runs are
named by letters. All are on the paper's 2,848 photos, from torchvision's ImageNet weights, with all parameters
trained by SGD of momentum 0.9, StepLR of 7 epochs and 0.1, torchvision's crops, an unseeded 80/20 split, and
validation under the training transform. ``index.csv`` says what differs: network, epochs in the log, batch size,
learning rate, augmentation, seconds of the whole session on the student's own machine, best accuracy. E18, E34 and
E50 are one student's, on one machine (a P100). ``B.csv`` lacks an epoch that its log lost.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flowerlib.experiment import Experiment
from flowerlib.report.paper.published import LATE, SESSIONS, published_tables

FOLDER = Path(__file__).parent


def others_index() -> pd.DataFrame:
    """A row a run: ``run``, ``model``, ``epochs_logged``, ``batch_size``, ``learning_rate``, ``augmentation``,
    ``seconds`` (NaN where the log has none), ``best_val_aug_acc``.
    """
    return pd.read_csv(FOLDER / "index.csv")


def others_tables() -> dict[str, pd.DataFrame]:
    """By run a row an epoch: ``epoch``, ``train_loss``, ``train_acc``, ``val_aug_loss``, ``val_aug_acc``."""
    return {run: pd.read_csv(FOLDER / f"{run}.csv") for run in others_index()["run"]}


def others_table() -> pd.DataFrame:
    """The published sessions among others' runs, by late accuracy under the paper's protocol.

    Returns:
        A row a run, the highest first: ``run``, ``source`` (``the paper`` or ``others``), ``model``, ``batch_size``,
        ``learning_rate``, ``augmentation``, ``seconds``, ``late_acc`` (mean from epoch 14 on), ``late_sd`` (of its
        epochs).
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
    columns = ["run", "source", "model", "batch_size", "learning_rate", "augmentation", "seconds"]
    table = table[[*columns, "late_acc", "late_sd"]]
    return table.sort_values("late_acc", ascending=False, kind="stable").reset_index(drop=True)


def others_numbers() -> dict[str, float]:
    """What others' runs say of the paper's comparisons.

    Returns:
        ``resnet18_runs``: how many; ``lowest`` and ``highest`` of their late accuracies; ``deeper``: one student's
        ResNet-34 minus ResNet-18, late; ``deeper_time``: their times as a ratio; ``published_deeper``: the paper's
        ResNet-34 minus ResNet-18, late.
    """
    table = others_table().set_index("run")
    late, seconds = table["late_acc"], table["seconds"]
    eighteen = late[(table["source"] == "others") & (table["model"] == "resnet18")]
    return {
        "resnet18_runs": len(eighteen),
        "lowest": eighteen.min(),
        "highest": eighteen.max(),
        "deeper": late["E34"] - late["E18"],
        "deeper_time": seconds["E34"] / seconds["E18"],
        "published_deeper": late["resnet34-bs32"] - late["resnet18-bs32"],
    }
