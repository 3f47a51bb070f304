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

FOLDER = Path(__file__).parent


def others_index() -> pd.DataFrame:
    """A row a run: ``run``, ``model``, ``epochs_logged``, ``batch_size``, ``learning_rate``, ``augmentation``,
    ``seconds`` (NaN where the log has none), ``best_val_aug_acc``.
    """
    return pd.read_csv(FOLDER / "index.csv")


def others_tables() -> dict[str, pd.DataFrame]:
    """By run a row an epoch: ``epoch``, ``train_loss``, ``train_acc``, ``val_aug_loss``, ``val_aug_acc``."""
    return {run: pd.read_csv(FOLDER / f"{run}.csv") for run in others_index()["run"]}
