"""Labels that look wrong: those that networks contradict which were not trained on them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flowerlib.errors import UserError
from flowerlib.files import write_text

LABELS = "labels.csv"  # in the folder of a cross-validation's last fold
COLUMNS = ("photo", "label", "predicted", "confidence", "quality", "issue")


def rank_labels(predictions: pd.DataFrame) -> pd.DataFrame:
    """All labels, the most doubtful first, by cleanlab.

    Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (J. Artificial
    Intelligence Research 70, 2021).

    Args:
        predictions: as in `flowerlib.runs.Run`, each of a network that was not trained on the photo.

    Returns:
        A row a photo: ``photo``, ``label``, ``predicted`` (the most probable class) with its probability
        (``confidence``), ``quality`` (the label's probability) and ``issue`` (whether the label is likely wrong).

    Raises:
        UserError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise UserError(
            "Labels that look wrong are ranked by cleanlab, which is not installed: .venv/bin/pip install -c "
            "requirements.lock -e '.[labels]'. Then run the same command again."
        ) from error
    classes = list(predictions.columns[2:])
    probabilities = predictions[classes].to_numpy()
    labels = predictions["label"].map(classes.index).to_numpy()
    table = predictions[["photo", "label"]].assign(
        predicted=predictions[classes].idxmax(axis="columns"),
        confidence=probabilities.max(axis=1),
        quality=get_label_quality_scores(labels, probabilities),
        issue=find_label_issues(labels, probabilities, n_jobs=1),
    )
    return table.sort_values(["quality", "photo"], ignore_index=True)


def write_labels(path: Path, table: pd.DataFrame) -> None:
    """Write `rank_labels`'s table as CSV."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def read_labels(path: Path) -> pd.DataFrame | None:
    """Read what `write_labels` wrote; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        table = pd.read_csv(path, dtype={"photo": str, "label": str, "predicted": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read as a table. Remove it and run .venv/bin/flowerlib run again."
        ) from error
    if tuple(table.columns) != COLUMNS:
        raise UserError(
            f"{path} must have the columns {', '.join(COLUMNS)}. Remove it and run .venv/bin/flowerlib run again."
        )
    return table
