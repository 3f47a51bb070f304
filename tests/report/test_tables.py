import re

import numpy as np
import pandas as pd
import pytest

from flowerlib.report.tables import CHARACTER, GAP, TEXT_WIDTH, epoch_table, frame_table

COLUMNS = {"train_loss": "Train loss", "val_acc": "Validation accuracy"}


def metrics(epochs):
    return pd.DataFrame(
        {"epoch": range(epochs), "train_loss": np.arange(epochs) + 0.1234, "val_acc": np.linspace(0.5, 0.75, epochs)}
    )


def rows(tabular):
    """The cells of each row of a tabular."""
    lines = [line.removesuffix(r" \\") for line in tabular.splitlines() if line.endswith(r"\\")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in lines]


def specification(tabular):
    return re.search(r"\\begin\{tabular\}\{@\{\}(.*)@\{\}\}", tabular)[1]


def test_epochs_stand_in_two_blocks_of_ten():
    table = rows(epoch_table(metrics(20), COLUMNS, "t", "c").tabular)
    assert [len(row) for row in table] == [11] * 6
    assert table[0] == [r"\textbf{Epoch}", *(rf"\textbf{{{epoch}}}" for epoch in range(10))]
    assert table[3] == [r"\textbf{Epoch}", *(rf"\textbf{{{epoch}}}" for epoch in range(10, 20))]
    assert table[1][:3] == ["Train loss", ".123", "1.123"]
    assert table[5][-1] == ".750"


def test_a_short_last_block_is_filled_up():
    table = rows(epoch_table(metrics(13), COLUMNS, "t", "c").tabular)
    assert [len(row) for row in table] == [11] * 6
    assert table[4] == ["Train loss", "10.123", "11.123", "12.123", *[""] * 7]


def test_few_epochs_make_few_columns():
    assert specification(epoch_table(metrics(4), COLUMNS, "t", "c").tabular) == "lrrrr"


@pytest.mark.parametrize("epochs", [0, 1, 10])
def test_any_number_of_epochs_makes_one_block(epochs):
    assert len(rows(epoch_table(metrics(epochs), COLUMNS, "t", "c").tabular)) == 3


def test_a_missing_number_is_a_dash():
    frame = metrics(3)
    frame.loc[1, "val_acc"] = np.nan
    table = epoch_table(frame, COLUMNS, "t", "c")
    assert rows(table.tabular)[2][1:] == [".500", "–", ".750"]
    assert ">–<" in table.html


def test_fractions_have_three_decimals_and_the_rest_its_text():
    table = frame_table(pd.DataFrame({"Name": ["a_b", None], "Share": [0.5, 0.25], "n": [3, 4]}), "t", "c")
    assert rows(table.tabular)[1:] == [[r"a\_\allowbreak{}b", "0.500", "3"], ["–", "0.250", "4"]]
    assert specification(table.tabular) == "lrr"
    assert "a_b" in table.html


def test_cells_are_escaped_in_both():
    table = frame_table(pd.DataFrame({"Session": ["[a] & <b> 50 %"]}), "t", "c")
    assert r"{[}a{]} \& <b> 50 \%" in table.tabular
    assert "[a] &amp; &lt;b&gt; 50 %" in table.html


@pytest.mark.parametrize("name", ["a_long_name_" * 12, "x" * 150, "many words " * 12])
def test_long_cells_wrap_within_the_page(name):
    title = "Accuracy of the last epoch on clean photos"
    frame = pd.DataFrame({"Session": [name], title: [0.5], "n": [1], "Loss": [1.0]})
    widths = specification(frame_table(frame, "t", "c").tabular)
    wrapped = [float(width) for width in re.findall(r"p\{([\d.]+)\\linewidth\}", widths)]
    unwrapped = 5 * CHARACTER + (1 if "rr" in widths else 0)
    assert wrapped
    assert sum(wrapped) * TEXT_WIDTH + unwrapped + 3 * GAP <= TEXT_WIDTH + CHARACTER


def test_the_papers_tables_need_no_wrapping():
    titles = {"train_loss": "Validation accuracy", "val_acc": "Train loss"}
    assert specification(epoch_table(metrics(20).assign(train_loss=0.5), titles, "t", "c").tabular) == "l" + "r" * 10


def test_a_spread_stands_under_each_mean():
    metrics = pd.DataFrame({"epoch": [0, 1, 2], "val_acc": [0.5, 0.6, 0.7]})
    spread = pd.DataFrame({"epoch": [0, 1, 2], "val_acc": [0.01, 0.02, 0.03]})
    table = epoch_table(metrics, {"val_acc": "Val acc"}, "x", "", block=2, spread=spread)
    cells = rows(table.tabular)
    assert cells[1:3] == [["Val acc", ".500", ".600"], ["", "±.010", "±.020"]]
    assert cells[4:6] == [["Val acc", ".700", ""], ["", "±.030", ""]]


def test_text_may_be_aligned_as_numbers_are():
    frame = pd.DataFrame({"name": ["a"], "value": ["0.5 ± 0.1"]})
    assert specification(frame_table(frame, "x", "", right=["value"]).tabular) == "lr"
    assert specification(frame_table(frame, "x", "").tabular) == "ll"


def test_a_table_carries_its_numbers_unrounded():
    third = pd.DataFrame({"n": [1 / 3]})
    assert frame_table(third, "x", "").data["n"].tolist() == [1 / 3]
    assert frame_table(pd.DataFrame({"n": ["0.33 ± 0.01"]}), "x", "", data=third).data is third
    numbers = metrics(3)
    data = epoch_table(numbers, {"val_acc": "Val acc"}, "x", "", spread=numbers / 7).data
    assert list(data) == ["epoch", "val_acc", "val_acc_sd"]
    assert data["val_acc_sd"].tolist() == (numbers["val_acc"] / 7).tolist()
