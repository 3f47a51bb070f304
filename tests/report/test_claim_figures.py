from itertools import pairwise

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_up import QUICK, make_run, with_right

from flowerlib import figures
from flowerlib.report.claim_figures import claims_figure, plot_claim, plot_others
from flowerlib.report.paper.others import others_table
from flowerlib.report.verdicts import findings_table, judge_all

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _style():
    with plt.rc_context():
        figures.use_report_style()
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def table():
    runs = [make_run(name, curve=QUICK, table=with_right(correct)) for name, correct in (
        ("resnet18-bs32", 900), ("resnet18-bs64", 800), ("resnet34-bs32", 880))]  # fmt: skip
    return findings_table(judge_all(runs))


def test_two_validations_never_share_an_axis(table):
    figure = claims_figure(table)
    panels = table.dropna(subset="value").groupby(["key", "protocol"])
    assert len(figure.axes) == panels.ngroups
    g = [ax for ax in figure.axes if ax.get_title("left").startswith("(g)")]
    assert [ax.get_xlabel() for ax in g] == ["Late accuracy, augmented", "Accuracy, clean"]
    assert [[label.get_text() for label in ax.get_yticklabels()] for ax in g] == [["published"], ["ours"]]


def test_labels_are_one_line_and_numbers_do_not_overlap(table):
    figure = claims_figure(table)
    figure.draw_without_rendering()
    for ax in figure.axes:
        assert "\n" not in ax.get_xlabel()
        ticks = [tick.get_window_extent() for tick in ax.get_xticklabels() if tick.get_text()]
        assert not any(left.overlaps(right) for left, right in pairwise(ticks))


def test_a_claims_values_and_its_range_are_drawn(table):
    rows = table[(table["key"] == "e1") & (table["evidence"] == "ours")]
    ax = plot_claim(rows)
    interval, marker = ax.get_lines()
    assert list(interval.get_xdata()) == rows[["low", "high"]].iloc[0].tolist()
    assert marker.get_xdata()[0] == rows["value"].iloc[0]
    assert marker.get_markerfacecolor() == "black"  # decided
    (span,) = ax.patches
    assert span.get_x() + span.get_width() == pytest.approx(0)


def test_others_are_drawn_where_they_stand():
    table = others_table()
    ax = plot_others(table)
    assert ax.get_yticklabels()[0].get_text() == "ResNet-18, batch 32"
    assert len(ax.get_yticklabels()) == len(table) == 10
    papers, others = (each for each in ax.containers)
    assert list(papers.lines[0].get_xdata()) == table[table["source"] == "the paper"]["late_acc"].tolist()
    assert len(others.lines[0].get_xdata()) == 7


def test_verdicts_look_different_also_in_grey(table):
    rows = table.dropna(subset="value").drop_duplicates("verdict")
    assert len(rows) == 3
    looks = set()
    for key, protocol in zip(rows["key"], rows["protocol"], strict=True):
        for line in plot_claim(table[(table["key"] == key) & (table["protocol"] == protocol)]).get_lines()[1::2]:
            looks.add((line.get_marker(), line.get_markerfacecolor()))
            assert line.get_color() == "black"
    assert len(looks) == 3


def test_the_claimed_range_is_grey_as_far_as_the_panel_reaches(table):
    for _, rows in table.dropna(subset="value").groupby(["key", "protocol"]):
        ax = plot_claim(rows)
        (band,) = ax.patches
        claimed = rows[["claimed_low", "claimed_high"]].iloc[0]
        assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx(
            tuple(np.clip(claimed, *ax.get_xlim()))
        )
        assert all(ax.get_xlim()[0] < bound < ax.get_xlim()[1] for bound in claimed if np.isfinite(bound))
