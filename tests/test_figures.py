import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from flowerlib import figures
from flowerlib.metrics import METRICS_COLUMNS, Run

matplotlib.use("Agg")


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
