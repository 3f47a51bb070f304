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


def test_a_sessions_figure_has_loss_and_accuracy():
    loss, accuracy = figures.session_figure(make_run("a")).axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("Cross-entropy (nats)", "Top-1 accuracy")


def test_curves_differ_in_more_than_colour():
    figures.use_report_style()
    drawn = figures.plot_run(make_run("a"), "loss").get_lines()
    for get in ("get_color", "get_linestyle", "get_marker"):
        assert len({getattr(line, get)() for line in drawn}) == len(drawn)


def test_a_confusion_matrix_shows_every_count():
    matrix = pd.DataFrame([[5, 1], [0, 7]], index=["a", "b"], columns=["a", "b"])
    ax = figures.plot_confusion(matrix)
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


# ---- classes


def test_many_classes_give_a_figure_of_bounded_size():
    names = [f"class {number}" for number in range(300)]
    figure = figures.plot_confusion(pd.DataFrame(np.eye(300, dtype=int), names, names)).figure
    assert max(figure.get_size_inches()) < 12
    assert not figure.axes[0].texts


def test_a_font_that_has_a_name_is_used_beside_the_usual_one():
    figures.use_report_style(["Schön", "שלום"])
    assert plt.rcParams["font.family"] == [figures.USUAL_FONT, "DejaVu Sans"]
    figures.use_report_style()
    assert plt.rcParams["font.family"] == [figures.USUAL_FONT]
