"""Labels that look wrong."""

import sys

import numpy as np
import pandas as pd
import pytest

from flowerlib.data.labels import COLUMNS, rank_labels, read_labels, write_labels
from flowerlib.errors import UserError

CLASSES = ["aster", "NA", "clover"]


@pytest.fixture
def predictions():
    """300 photos of three classes, predicted with probability 0.6 to 0.9; six of the labels were swapped."""
    random = np.random.default_rng(0)
    truth = np.repeat(range(3), 100)
    sure = random.uniform(0.6, 0.9, 300)
    table = pd.DataFrame(
        np.where(np.arange(3) == truth[:, None], sure[:, None], (1 - sure[:, None]) / 2), columns=CLASSES
    )
    labels = truth.copy()
    labels[::50] = (labels[::50] + 1) % 3
    table.insert(0, "photo", [f"{place}.jpg" for place in range(300)])
    table.insert(1, "label", [CLASSES[label] for label in labels])
    return table


def test_swapped_labels_come_first_and_are_written(predictions, tmp_path):
    table = rank_labels(predictions)
    assert tuple(table.columns) == COLUMNS
    assert set(table["photo"].head(6)) == {f"{place}.jpg" for place in range(0, 300, 50)}
    assert table["issue"].any()
    assert not table["issue"].iloc[6:].any()
    write_labels(tmp_path / "labels.csv", table)
    pd.testing.assert_frame_equal(read_labels(tmp_path / "labels.csv"), table, check_dtype=False)


def test_what_is_no_table_of_labels(tmp_path):
    assert read_labels(tmp_path / "labels.csv") is None
    for content in (b"\xff\xfe\x00", b"photo,label\n"):
        (tmp_path / "labels.csv").write_bytes(content)
        with pytest.raises(UserError, match="Remove it"):
            read_labels(tmp_path / "labels.csv")


def test_without_cleanlab_it_is_said_how_to_install_it(predictions, monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(UserError, match=r"\.\[labels\]"):
        rank_labels(predictions)
