from itertools import pairwise

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from flowerlib import figures
from flowerlib.report.statistics import reliability_bins
from flowerlib.runs import METRICS_COLUMNS, Run

matplotlib.use("Agg")

LONG = ("my $roses & $co of the far western hills", "An_unbroken_name_of_forty_characters_abc")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def make_run(name, epochs=12, classes=("a", "b")):
    random = np.random.default_rng(len(name))
    metrics = pd.DataFrame(random.random((epochs, len(METRICS_COLUMNS))), columns=METRICS_COLUMNS)
    metrics["epoch"] = range(epochs)
    return Run(name, None, {}, metrics, pd.DataFrame(columns=["photo", "label", *classes]))


def lines(ax):
    return {line.get_label(): line.get_ydata().tolist() for line in ax.get_lines()}


@pytest.mark.parametrize("quantity", ["loss", "acc"])
def test_a_runs_curves_are_its_columns(quantity):
    run = make_run("a")
    drawn = lines(figures.plot_run(run, quantity))
    assert drawn == {
        "training": run.metrics[f"train_{quantity}"].tolist(),
        "validation, clean": run.metrics[f"val_{quantity}"].tolist(),
        "validation, augmented": run.metrics[f"val_aug_{quantity}"].tolist(),
    }


def test_runs_are_compared_by_name_also_at_different_lengths():
    runs = [make_run("a"), make_run("bb", epochs=5)]
    drawn = lines(figures.plot_runs(runs, "val_acc"))
    assert drawn == {run.name: run.metrics["val_acc"].tolist() for run in runs}


def test_a_later_session_is_drawn_alone_and_beside_the_first():
    first, later = make_run("a"), make_run("bb")
    assert len(figures.session_figure(first).axes) == 2
    axes = figures.session_figure(later, first).axes
    assert [set(lines(ax)) for ax in axes[2:]] == [{"a", "bb"}] * 2


def test_curves_differ_in_more_than_colour():
    figures.use_report_style()
    drawn = figures.plot_run(make_run("a"), "loss").get_lines()
    for get in ("get_color", "get_linestyle", "get_marker"):
        assert len({getattr(line, get)() for line in drawn}) == len(drawn)


def test_the_confusion_figure_shows_every_count():
    matrix = pd.DataFrame([[5, 1], [0, 7]], index=["a", "b"], columns=["a", "b"])
    ax = figures.confusion_figure(matrix).axes[0]
    assert [text.get_text() for text in ax.texts] == ["5", "1", "0", "7"]


def test_the_contact_sheet_shows_every_picture():
    axes = figures.contact_sheet(np.zeros((11, 8, 8, 3), np.uint8), list("abcdefghijk")).axes
    assert [ax.get_title() for ax in axes if ax.get_images()] == list("abcdefghijk")


def assert_nothing_leaves_the_page(figure):
    for _ in range(3):  # until matplotlib's layout has settled
        figure.canvas.draw()
    drawn, slack = figure.get_tightbbox(), 0.02  # inches
    width, height = figure.get_size_inches()
    assert drawn.x0 >= -slack
    assert drawn.y0 >= -slack
    assert drawn.x1 <= width + slack
    assert drawn.y1 <= height + slack


# ---- bands


def test_a_band_reaches_as_far_as_the_spread_where_there_is_one():
    means = pd.DataFrame({"a": [0.5, 0.7, 0.8], "b": [0.4, 0.5, 0.6]})
    (band,) = figures.plot_epochs(means, "acc", spreads={"a": pd.Series([0.1, 0.05, 0.0])}).collections
    corners = {(epoch, round(value, 6)) for epoch, value in band.get_paths()[0].vertices}
    assert corners == {(0, 0.4), (0, 0.6), (1, 0.65), (1, 0.75), (2, 0.8)}
    assert not figures.plot_epochs(means, "acc").collections


def test_a_band_has_its_curves_colour():
    ax = figures.plot_epochs({"a": pd.Series([0.5, 0.7])}, "acc", spreads={"a": pd.Series([0.1, 0.1])})
    assert matplotlib.colors.same_color(ax.collections[0].get_facecolor()[0][:3], ax.get_lines()[0].get_color())


# ---- reliability


def test_the_reliability_figure_shows_every_filled_bin():
    random = np.random.default_rng(0)
    chance = random.uniform(0.5, 1, 300)
    table = pd.DataFrame({"photo": map(str, range(300)), "label": "a", "a": chance, "b": 1 - chance})
    table.loc[::4, "label"] = "b"
    bins = reliability_bins(table)
    figure = figures.reliability_figure(bins)
    above, below = figure.axes
    filled = bins[bins["photos"] > 0]
    assert 0 < len(filled) < len(bins)
    points = above.containers[0].lines[0]
    assert points.get_xdata().tolist() == filled["confidence"].tolist()
    assert points.get_ydata().tolist() == filled["accuracy"].tolist()
    ends = [segment[:, 1].tolist() for segment in above.containers[0].lines[2][0].get_segments()]
    np.testing.assert_allclose(ends, filled[["accuracy_low", "accuracy_high"]])
    assert [text.get_text() for text in below.texts] == [str(count) for count in filled["photos"]]
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in below.patches]
    np.testing.assert_allclose(edges, filled[["from", "to"]])


@pytest.mark.parametrize("times", [1, 1000])
def test_counts_do_not_run_into_each_other(times):
    counts = np.full(15, 999 * times)
    edges = np.linspace(0, 1, 16)
    middles = (edges[1:] + edges[:-1]) / 2
    bins = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "photos": counts, "confidence": middles})
    bins["accuracy"] = bins["accuracy_low"] = bins["accuracy_high"] = 0.5
    figures.use_report_style()
    figure = figures.reliability_figure(bins)
    assert_nothing_leaves_the_page(figure)
    boxes = [text.get_window_extent() for text in figure.axes[1].texts]
    assert not any(left.overlaps(right) for left, right in pairwise(boxes))


# ---- noise
