"""Made-up tables of sessions, for tests of what is said of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from flowerlib.experiment import Experiment
from flowerlib.report.paper.published import SESSIONS
from flowerlib.runs import DatasetInfo, Device, Run, RunInfo, SplitInfo, WeightsInfo

PHOTOS = 1000
EPOCHS = np.arange(20)

QUICK = 0.9 - 0.4 * np.exp(-EPOCHS / 0.5)
SLOW = 0.9 - 0.4 * np.exp(-EPOCHS / 4)
EARLIER = 0.9 - 0.4 * np.exp(-EPOCHS / 3.8)  # than SLOW, by less than can be seen
ZIGZAG = np.where(EPOCHS % 2, 1.0, -1.0) * (1 + EPOCHS % 3 / 10)


def predictions(right, photos=None, classes=("aster", "broom")):
    """Photos of asters; where ``right``, aster is the most probable class."""
    chance = np.where(np.asarray(right, dtype=bool), 0.9, 0.2)
    photos = [f"aster/{number}.jpg" for number in range(len(chance))] if photos is None else photos
    return pd.DataFrame({"photo": photos, "label": "aster", classes[0]: chance, classes[1]: 1 - chance})


def with_right(correct, photos=PHOTOS, first=0):
    """Predictions with ``correct`` photos right, from place ``first`` on."""
    return predictions((np.arange(photos) - first) % photos < correct)


def make_run(
    session,
    *,
    seed=0,
    curve=SLOW,
    clean=None,
    training=None,
    seconds=10.0,
    table=None,
    photos=PHOTOS,
    device="cpu",
    evaluations=(),
    **more,
):
    """A run of one of the paper's sessions, or of one with ``more`` settings."""
    own = {"epochs": len(curve), **SESSIONS[session], "seed": seed}
    settings = Experiment(**own | more)
    metrics = pd.DataFrame(
        {
            "epoch": range(len(curve)),
            "val_aug_acc": curve,
            "val_acc": curve if clean is None else clean,
            "train_acc": curve if training is None else training,
            "train_loss": 1 - np.asarray(curve if training is None else training),
            "val_aug_loss": 1 - np.asarray(curve),
            # a little different from epoch to epoch, as clocks are
            "train_seconds": seconds * (1 + 0.01 * np.resize([1, -1], len(curve))),
        }
    )
    info = RunInfo(
        finished=True,
        settings=settings,
        seed=settings.seed,
        dataset=DatasetInfo(
            name="made-up", photos=5 * photos, classes={"aster": 1, "broom": 1}, fingerprint="photos"
        ),
        split=SplitInfo(train=4 * photos, validation=photos, fingerprint="split"),
        weights=WeightsInfo(source="imagenet", file=None, sha256=None),
        precision="float32",
        device=Device(type="cpu", name=device, threads=2),
        versions={"torch": "2.15.0"},
        commit=None,
    )
    predicted = with_right(900) if table is None else table
    return Run(session, Path(session), info, metrics, predicted, tuple(evaluations))


def changed(run, **parts):
    """The run with other parts of run.json; a mapping replaces some fields of a part."""
    new = {
        name: getattr(run.info, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in parts.items()
    }
    return replace(run, info=run.info.model_copy(update=new))
