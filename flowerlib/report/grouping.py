"""Runs that belong together: the seeds of a session, and the folds of a cross-validation."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api.typing import DataFrameGroupBy

from flowerlib.experiment import base_name
from flowerlib.runs import EarlierEpochs, Run, RunInfo, inputs


@dataclass(frozen=True)
class Session:
    """Runs that differ in nothing but the seed; one, if a session was run once.

    Attributes:
        name: the session's name, without a seed where there are several.
        runs: in the order of their seeds.
    """

    name: str
    runs: tuple[Run, ...]

    @property
    def info(self) -> RunInfo:
        """run.json of the first run."""
        return self.runs[0].info

    @property
    def classes(self) -> list[str]:
        """The classes, alphabetically."""
        return self.runs[0].classes

    @property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        return [run.info.settings.seed for run in self.runs]

    @property
    def metrics(self) -> pd.DataFrame:
        """A row an epoch: means over the seeds."""
        if len(self.runs) == 1:
            return self.runs[0].metrics
        return self._all_metrics().mean().reset_index()

    @property
    def spread(self) -> pd.DataFrame | None:
        """A row an epoch: standard deviations over the seeds; None of one seed."""
        return self._all_metrics().std().reset_index() if len(self.runs) > 1 else None

    def last(self, column: str) -> pd.Series:
        """A column's value after the last epoch of each run, by seed."""
        return pd.Series([run.metrics[column].iloc[-1] for run in self.runs], index=self.seeds, dtype=float)

    def _all_metrics(self) -> DataFrameGroupBy:
        return pd.concat([run.metrics for run in self.runs]).groupby("epoch")


def group_seeds(runs: Sequence[Run]) -> list[Session]:
    """Put the seeds of a session together: runs with equal inputs whose names differ in the seed alone.

    A seed that is there twice, as ``slow`` and as ``slow-seed0``, counts once. Where seeds of one name differ
    in more than the seed, each group has the name of its first run.
    """
    groups: dict[tuple[str, str], dict[int, Run]] = {}
    for run in runs:
        seed = run.info.settings.seed
        same_but_seed = json.dumps(inputs(run.info) | {"seed": None}, sort_keys=True)
        groups.setdefault((base_name(run.name, run.info.settings), same_but_seed), {}).setdefault(seed, run)
    namesakes = Counter(name for name, _ in groups)
    sessions = []
    for (name, _), group in groups.items():
        own = tuple(group[seed] for seed in sorted(group))
        sessions.append(Session(name if len(own) > 1 and namesakes[name] == 1 else own[0].name, own))
    return sessions


def pool_folds(runs: Sequence[Run]) -> list[Run]:
    """Put the folds of each cross-validation together, as one run; other runs stay as they are.

    Its predictions are those of all folds, so that each photo was predicted by a network that was not trained on it;
    its times are sums, its other numbers means over the folds, weighted by their validation photos. Its folder is the
    first fold's. A cross-validation that lacks a fold is left out, and a line says so.
    """
    whole, folds = [], {}
    for run in runs:
        settings = run.info.settings
        if settings.fold is None:
            whole.append(run)
        else:
            how = settings.model_dump(include={"folds", "split", "split_seed"})
            same_but_fold = json.dumps(inputs(run.info) | {"split's fingerprint": how}, sort_keys=True)
            folds.setdefault((base_name(run.name, settings), same_but_fold), []).append(run)
    for (name, _), together in folds.items():
        number = together[0].info.settings.folds
        if len(together) == number:
            whole.append(_pooled(name, together))
        else:
            print(f"not in it, {len(together)} of {number} folds are finished: {name}")
    return whole


def _pooled(name: str, folds: Sequence[Run]) -> Run:
    folds = sorted(folds, key=lambda run: run.info.settings.fold)
    info, photos = folds[0].info, [run.info.split.validation for run in folds]
    fingerprint = hashlib.sha256("".join(run.info.split.fingerprint for run in folds).encode()).hexdigest()
    split = info.split.model_copy(update={"validation": sum(photos), "fingerprint": fingerprint})
    settings = info.settings.model_copy(update={"fold": None})
    metrics = sum(run.metrics * count for run, count in zip(folds, photos, strict=True)) / sum(photos)
    seconds = {
        name: sum(run.metrics[name] for run in folds) for name in ("train_seconds", "val_seconds") if name in metrics
    }
    others = [
        part
        for run in folds[1:]
        for part in (*run.info.earlier, EarlierEpochs(**dict(run.info.computed), epochs=run.info.settings.epochs))
    ]
    repeats = [run.repeats for run in folds]
    return Run(
        name,
        folds[0].folder,
        info.model_copy(
            update={
                "split": split,
                "settings": settings,
                "calibration": None,  # each fold has its own
                "earlier": (*info.earlier, *others),
            }
        ),
        metrics.assign(epoch=folds[0].metrics["epoch"], **seconds),
        pd.concat([run.predictions for run in folds], ignore_index=True),
        tuple(np.average(repeats, axis=0, weights=photos)) if len(set(map(len, repeats))) == 1 else (),
        folds={photo: fold for fold, run in enumerate(folds) for photo in run.predictions["photo"]},
    )
