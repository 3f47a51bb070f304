"""The paper's Tables 1-3, under this project's names.

The paper applied its one transform, the augmentation, before it split the photos: its validation photos were
augmented, and its validation columns are our ``val_aug_loss`` and ``val_aug_acc``. It published neither clean
validation nor predictions, learning rates or times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from flowerlib.metrics import Run

TABLES = Path(__file__).with_name("published_tables")

# What tells the paper's sessions apart (section 4), by our name of each, in the order of its Tables 1-3.
SESSIONS: dict[str, dict[str, Any]] = {
    "resnet18-bs32": {"model": "resnet18", "batch_size": 32},
    "resnet18-bs64": {"model": "resnet18", "batch_size": 64},
    "resnet34-bs32": {"model": "resnet34", "batch_size": 32},
}

# Section 3.2: the learning rate is multiplied by 0.1 every 7 epochs.
LR_STEP = 7

# The paper does not say how many photos validated. Rounded to four decimals and then to three, all of its 60
# validation accuracies are whole numbers of 570 photos, and of no other number from 400 to 700; and a fifth of
# its 2,848 photos is 570 (tests/test_published.py).
VALIDATION_PHOTOS = 570

_COLUMNS = {"val_loss": "val_aug_loss", "val_acc": "val_aug_acc"}


def published_tables() -> dict[str, pd.DataFrame]:
    """The paper's Tables 1-3 by session.

    Returns:
        For each of `SESSIONS` a row an epoch (20, from 0): ``epoch``, ``train_loss``, ``train_acc``,
        ``val_aug_loss``, ``val_aug_acc``. Losses in nats, accuracies as fractions, three decimals.
    """
    return {name: pd.read_csv(TABLES / f"{name}.csv").rename(columns=_COLUMNS) for name in SESSIONS}


def published_runs() -> list[Run]:
    """The paper's sessions as runs, for whatever takes our own: no predictions, no seed, few columns and settings."""
    return [
        Run(
            name,
            TABLES,
            {
                "settings": {**SESSIONS[name], "epochs": len(table), "lr_step": LR_STEP, "seed": None},
                "split": {"validation": VALIDATION_PHOTOS},
            },
            table,
            pd.DataFrame(columns=["photo", "label"]),
        )
        for name, table in published_tables().items()
    ]
