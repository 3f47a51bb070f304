from decimal import ROUND_HALF_UP, Decimal

import pandas as pd
import pytest

from flowerlib.report.paper.published import (
    SESSIONS,
    TABLES,
    VALIDATION_PHOTOS,
    published_runs,
    published_tables,
)


@pytest.mark.parametrize("name", SESSIONS)
def test_a_table_has_twenty_epochs_under_our_names(name):
    table = published_tables()[name]
    assert list(table.columns) == ["epoch", "train_loss", "train_acc", "val_aug_loss", "val_aug_acc"]
    assert list(table["epoch"]) == list(range(20))
    assert table.notna().all(axis=None)
    assert table[["train_acc", "val_aug_acc"]].stack().between(0.6, 0.95).all()


def test_numbers_are_the_papers():
    # paper, Tables 1-3: the first and the last epoch of each, and Table 1's best
    tables = published_tables()
    assert tables["resnet18-bs32"].iloc[0].tolist() == [0, 0.959, 0.640, 0.462, 0.844]
    assert tables["resnet18-bs32"].iloc[19].tolist() == [19, 0.229, 0.919, 0.272, 0.911]
    assert tables["resnet18-bs64"].iloc[0].tolist() == [0, 1.115, 0.606, 0.671, 0.805]
    assert tables["resnet18-bs64"].iloc[19].tolist() == [19, 0.265, 0.913, 0.291, 0.895]
    assert tables["resnet34-bs32"].iloc[0].tolist() == [0, 0.818, 0.700, 0.391, 0.865]
    assert tables["resnet34-bs32"].iloc[19].tolist() == [19, 0.190, 0.932, 0.220, 0.916]
    assert tables["resnet18-bs32"]["val_aug_acc"].max() == 0.932


def attainable(photos):
    """The accuracies of ``photos`` photos, rounded to four decimals and then to three."""
    shares = (Decimal(correct) / photos for correct in range(photos + 1))
    return {str(share.quantize(Decimal("0.0001"), ROUND_HALF_UP).quantize(Decimal("0.001"), ROUND_HALF_UP))
            for share in shares}  # fmt: skip


def test_570_photos_and_no_other_number_give_the_accuracies():
    texts = [text for name in SESSIONS for text in pd.read_csv(TABLES / f"{name}.csv", dtype=str)["val_acc"]]
    assert len(texts) == 60
    assert [photos for photos in range(400, 701) if attainable(photos).issuperset(texts)] == [VALIDATION_PHOTOS]


def test_runs_carry_what_the_paper_says_and_no_more():
    runs = published_runs()
    assert [run.name for run in runs] == list(SESSIONS)
    for run in runs:
        settings = run.info.settings
        assert f"{settings.model}-bs{settings.batch_size}" == run.name
        assert run.predictions.empty
        assert not {"val_acc", "learning_rate", "train_seconds"} & set(run.metrics.columns)
