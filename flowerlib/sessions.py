"""Running the session notebook for each entry of experiments.yaml, through papermill."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pandas as pd

from flowerlib.data.decoding import kept_side
from flowerlib.data.duplicates import PAIRS, provide_pairs
from flowerlib.data.labels import LABELS, rank_labels, write_labels
from flowerlib.data.photos import PhotoSet, photos_for
from flowerlib.data.split import split_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment, base_name, fold_name
from flowerlib.files import NOTEBOOKS, check_space, locked, make_folder
from flowerlib.progress import PROGRESS_VARIABLE
from flowerlib.runs import (
    LAST,
    epochs_done,
    inputs,
    is_finished,
    is_up_to_date,
    read_info,
    read_run,
    refuse_other_inputs,
)
from flowerlib.training.weights_file import same_weights

SESSION_NOTEBOOK = NOTEBOOKS / "session.ipynb"


@dataclass(frozen=True)
class Plan:
    """A session before it runs: its settings, and its folder."""

    name: str
    experiment: Experiment
    folder: Path


Executor = Callable[[Sequence[Plan], bool], list[str]]  # runs plans, perhaps with force; names those that failed


def run_sessions(
    experiments: Mapping[str, Experiment],
    runs: Path,
    group: str = "",
    *,
    force: bool = False,
    executor: Executor | None = None,
) -> list[str]:
    """Run each session that is not finished; go on after one that fails.

    Args:
        experiments: settings by session name.
        runs: the folder of runs; a session's own is ``runs/<dataset>/<session>``.
        group: a folder between data set and session.
        force: begin again, also where a session is finished or unfinished.
        executor: how the waiting sessions are run; `run_in_turn` if None. `flowerlib.cluster` has others.

    Returns:
        Names of the sessions that failed.

    Raises:
        UserError: something that is known before training: photos, weights, device or folder can't be used,
            or a session's folder holds a run of other settings.
    """
    photos: dict[tuple, PhotoSet] = {}
    plans, waiting, needed = [], [], 0
    for name, each in experiments.items():
        same_photos = each.data, each.skip_bad, each.exclude, each.cache, kept_side(each.image_size)
        if same_photos not in photos:
            photos[same_photos] = photos_for(each)
        plan = Plan(name, each, runs / photos[same_photos].name / group / name)
        plans.append(plan)
        if force or not _recorded_as_complete(plan, photos[same_photos]):
            # PyTorch takes seconds, which finished sessions don't need
            from flowerlib.training.provenance import plan_run

            info, size = plan_run(each, photos[same_photos])
            if not force:
                refuse_other_inputs(plan.folder, info)
            if force or not is_up_to_date(plan.folder, each):
                waiting.append(plan)
                needed += size if force or not (plan.folder / LAST).exists() else 0
    for plan in waiting:
        make_folder(plan.folder)
    check_space(runs, needed)

    for plan in plans:
        if plan not in waiting:
            print(f"{plan.name}: already finished, in {plan.folder}", flush=True)
    failed = (executor or run_in_turn)(waiting, force) if waiting else []
    for each in photos.values():
        provide_pairs(runs / each.name / PAIRS, each)
    _rank_labels(plans, waiting)
    return failed


def _rank_labels(plans: Sequence[Plan], run: Sequence[Plan]) -> None:
    """Write labels.csv beside the last fold of each cross-validation, once all of its folds are finished.

    Args:
        plans: all sessions that were asked for.
        run: those that were run.
    """
    sets = {(plan.folder.parent, base_name(plan.name, plan.experiment), plan.experiment.folds) for plan in plans}
    for parent, name, number in sets:
        folders = [parent / fold_name(name, fold) for fold in range(number or 0)]
        if not folders or not all(is_finished(folder) for folder in folders):
            continue
        path = folders[-1] / LABELS
        if path.exists() and not any(plan.folder in folders for plan in run):
            continue
        predictions = pd.concat([read_run(folder).predictions for folder in folders], ignore_index=True)
        try:
            table = rank_labels(predictions)
        except UserError as error:  # the sessions are none the worse for it
            print(f"{name}: {error}", file=sys.stderr)
        else:
            write_labels(path, table)
            print(f"{name}: {table['issue'].sum():,} labels look wrong; {path} ranks all labels.")


def _recorded_as_complete(plan: Plan, photos: PhotoSet) -> bool:
    """Whether run.json alone tells that nothing is left to do: it is complete, and of the same inputs.

    Where it does not, the session is planned, and what is wrong is said then.
    """
    before = read_info(plan.folder)
    if before is None or not is_up_to_date(plan.folder, plan.experiment) or not same_weights(plan.experiment, before):
        return False
    dataset = before.dataset.model_copy(update={"fingerprint": photos.fingerprint})
    split = before.split.model_copy(update={"fingerprint": split_photos(photos, plan.experiment).fingerprint})
    now = before.model_copy(update={"settings": plan.experiment, "dataset": dataset, "split": split})
    return inputs(now) == inputs(before)


def run_in_turn(plans: Sequence[Plan], force: bool) -> list[str]:
    """Run sessions one after the other; returns the names of those that failed."""
    os.environ[PROGRESS_VARIABLE] = "terminal" if sys.stderr.isatty() else "none"
    failed = []
    for plan in plans:
        print(f"{plan.name}: {plan.folder}", flush=True)
        try:
            run_session(plan, force, sys.stdout)
        except UserError as error:
            say_failed(plan, error)
            failed.append(plan.name)
        except KeyboardInterrupt:
            print(f"\n{plan.name}: stopped {progress_of(plan)}", file=sys.stderr)
            raise
    return failed


def run_session(plan: Plan, force: bool, echo: TextIO) -> None:
    """Run one session, alone in its folder.

    Args:
        plan: the session.
        force: begin again.
        echo: gets what the session prints.

    Raises:
        UserError: it fails; `flowerlib.notebooks.NotebookEnded` if its process was ended from outside.
    """
    from flowerlib.notebooks import execute_notebook  # a second that finished sessions don't need

    folder = plan.folder
    with locked(folder.with_name(f".{plan.name}.lock"), folder):
        if force:
            _set_aside(folder)
        parameters = {"session": plan.name, "run_dir": str(folder), **plan.experiment.changes()}
        log = folder / "session.log"
        execute_notebook(SESSION_NOTEBOOK, folder / "session.ipynb", parameters, log=log, echo=echo)
        shutil.rmtree(_aside(folder), ignore_errors=True)


def say_failed(plan: Plan, error: UserError) -> None:
    """Print why a session failed."""
    print(f"{plan.name}: failed. {error}{_kept(plan.folder)}", file=sys.stderr, flush=True)


def progress_of(plan: Plan) -> str:
    """Where an interrupted session stands: ``after 3 of 20 epochs.``"""
    return f"after {epochs_done(plan.folder)} of {plan.experiment.epochs} epochs.{_kept(plan.folder)}"


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.before")


def _kept(folder: Path) -> str:
    return f" The run that was there before is in {_aside(folder)}." if _aside(folder).exists() else ""


def _set_aside(folder: Path) -> None:
    """Keep what was there before a forced run until that run, or one that goes on with it, has succeeded."""
    with locked(folder / ".lock", folder):  # a notebook may be at work
        if any(folder.glob("*/run.json")):
            raise UserError(f"{folder} holds other sessions: rename this session, or the file that they come from.")
        begun = (folder / LAST).exists() and not _aside(folder).exists()
        if begun or _may_be_finished(folder):
            shutil.rmtree(_aside(folder), ignore_errors=True)
            folder.rename(_aside(folder))
        else:
            shutil.rmtree(folder)  # empty, or an earlier forced run that did not succeed
    make_folder(folder)


def _may_be_finished(folder: Path) -> bool:
    try:
        return is_finished(folder)
    except UserError:  # its run.json is damaged: what else is there may still be good
        return True
