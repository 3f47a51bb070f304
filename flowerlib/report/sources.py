"""What the report is made of: the finished sessions of a folder, what lies beside them, and the title page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict

from flowerlib.data.duplicates import PAIRS, read_pairs
from flowerlib.data.labels import LABELS, read_labels
from flowerlib.errors import UserError, one_line
from flowerlib.experiment import base_name, fold_name, load_yaml, read_experiments
from flowerlib.files import NOTEBOOKS, REPORT
from flowerlib.report.claims import paper_sessions
from flowerlib.report.display import TitlePage
from flowerlib.report.grouping import Session, group_seeds, pool_folds
from flowerlib.report.results import all_runs, is_of_papers_photos
from flowerlib.runs import Run, is_finished, read_info, read_runs


def load_sessions(folder: Path) -> list[Session]:
    """The finished sessions of a folder, those of experiments.yaml first, in its order; seeds and folds put together.

    Raises:
        UserError: there are none, or they were not run on the same photos and split: they can't be compared.
    """
    runs = pool_folds(read_runs(Path(folder), order=_names(NOTEBOOKS / "experiments.yaml")))
    if not runs:
        raise UserError(f"No cross-validation in {folder} has all of its folds. Run the same command again.")
    _refuse_mixed(folder, runs)
    return group_seeds(runs)


def load_seeds(folder: Path) -> list[Session]:
    """The finished sessions of seeds.yaml, in its order; none if they were not run.

    Raises:
        UserError: they were not run on the same photos and split.
    """
    return _load_further(folder, "seeds")


def load_ablations(folder: Path) -> list[Session]:
    """The finished sessions of ablations.yaml, in its order; none without the first, the full method, and another.

    Raises:
        UserError: they were not run on the same photos and split.
    """
    sessions = _load_further(folder, "ablations")
    if len(sessions) < 2:
        return []
    first, full = sessions[0], _names(NOTEBOOKS / "ablations.yaml")[0]
    return sessions if base_name(first.name, first.info.settings) == full else []


def _load_further(folder: Path, experiments: str) -> list[Session]:
    """The finished sessions of another file, which lie in a folder of its name beside the others."""
    folder = Path(folder) / experiments
    if not any(is_finished(path.parent) for path in folder.glob("[!.]*/run.json")):
        return []
    runs = pool_folds(read_runs(folder, _names(NOTEBOOKS / f"{experiments}.yaml")))
    _refuse_mixed(folder, runs)
    return group_seeds(runs)


def _names(experiments: Path) -> list[str]:
    """The names of the sessions in a file, without seeds."""
    return list(dict.fromkeys(base_name(name, each) for name, each in read_experiments(experiments).items()))


def _refuse_mixed(folder: Path, runs: Sequence[Run]) -> None:
    for first, run in pairwise(runs):
        same_photos = run.info.dataset.fingerprint == first.info.dataset.fingerprint
        if not (same_photos and run.info.split.fingerprint == first.info.split.fingerprint):
            names = f"{first.folder.name} and {run.folder.name}"
            raise UserError(
                f"The sessions {names} in {folder} have different photos or another split: they can't be compared. "
                "Keep them in different folders of runs (--runs), or run one of them again with --force."
            )


def load_pairs(folder: Path) -> pd.DataFrame | None:
    """The near-duplicates among the photos of a folder's sessions; None if there is no table for these photos."""
    infos = (read_info(path.parent) for path in sorted(Path(folder).glob("[!.]*/run.json")))
    fingerprint = next((info.dataset.fingerprint for info in infos if info and info.finished), "")  # of all sessions
    tables = [place / PAIRS for place in (Path(folder), Path(folder).parent)]  # sessions of another file lie deeper
    found = (read_pairs(table, fingerprint) for table in tables)
    return next((pairs for pairs in found if pairs is not None), None)


def load_labels(sessions: Sequence[Session]) -> pd.DataFrame | None:
    """The ranked labels of the first session, if it is a cross-validation for which they were ranked."""
    settings, folder = sessions[0].info.settings, sessions[0].runs[0].folder
    if not settings.folds:
        return None
    return read_labels(folder.with_name(fold_name(sessions[0].name, settings.folds - 1)) / LABELS)


def is_paper(sessions: Sequence[Session]) -> bool:
    """Whether the paper can be judged: its photos, and at least one of its sessions."""
    return is_of_papers_photos(sessions) and bool(paper_sessions(all_runs(sessions)))


def is_reference(folder: Path) -> bool:
    """Whether a folder of sessions is the one that comes with flowerlib."""
    return Path(folder).resolve() == REPORT / "results" / "paper"


class _Title(BaseModel):
    """report/title.yaml."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    title: str
    authors: Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
    date: Annotated[str, BeforeValidator(lambda value: "" if value is None else str(value))] = ""  # YAML has dates


def title_page(notice: str, path: Path = REPORT / "title.yaml") -> TitlePage:
    """Title and authors from the student's file, above what a reader must know first (may be empty)."""
    try:
        page = _Title.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} must give title, authors (a list) and date: {one_line(error)}.") from error
    return TitlePage(page.title, page.authors, page.date, notice)
