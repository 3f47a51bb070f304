"""explore.ipynb: what it shows of a folder, and the figures behind it."""

import shutil

import matplotlib
import nbformat
import numpy as np
import papermill
import pytest

from flowerlib import explore
from flowerlib.data.photos import load_photos
from flowerlib.experiment import Experiment
from flowerlib.files import NOTEBOOKS
from flowerlib.notebooks import execute_notebook

matplotlib.use("Agg")

EXPLORE = NOTEBOOKS / "explore.ipynb"


@pytest.fixture
def shown(photo_folder, tmp_path):
    """The executed notebook's text and pictures, of a folder with a damaged photo and one under two labels."""
    shutil.copy(photo_folder / "aster" / "0.jpg", photo_folder / "broom" / "copy.jpg")
    (photo_folder / "clover" / "0.jpg").write_text("no photo at all")
    parameters = {"data": str(photo_folder), "image_size": 40}
    execute_notebook(EXPLORE, tmp_path / "out.ipynb", parameters, log=tmp_path / "log")
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    return [(cell.source, out) for cell in cells for out in cell.get("outputs", [])]


def test_a_folder_with_problems_is_shown_whole(shown):
    text = " ".join(out.get("text", "") for _, out in shown)
    assert "clover/0.jpg" in text
    assert "aster/0.jpg = broom/copy.jpg" in text
    pictures = [source for source, out in shown if "image/png" in out.get("data", {})]
    assert sum("class_sheet" in source for source in pictures) == 3
    assert sum("pairs_figure" in source for source in pictures) == 2
    assert len(pictures) == 7


def test_its_parameters_are_the_settings_at_their_defaults_and_it_needs_no_download():
    found = {name: eval(each["default"]) for name, each in papermill.inspect_notebook(EXPLORE).items()}
    assert found.pop("data") == "synthetic"
    assert found.pop("photo") == 0
    assert found.items() <= dict(Experiment()).items()


def test_sizes_are_counted_by_class(photo_folder):
    photos = load_photos(str(photo_folder))
    table = explore.size_table(photos)
    assert table.index.tolist() == list(photos.classes)
    assert table["photos"].tolist() == [8, 8, 8]
    heights = [photos.read(index).shape[0] for index in np.flatnonzero(photos.labels == 1)]
    assert table["height"].loc["broom"].tolist() == [min(heights), int(np.median(heights)), max(heights)]


@pytest.mark.parametrize("off", [False, True])
def test_each_operation_changes_the_photo_unless_it_is_turned_off(photo_folder, off):
    settings = ("flip", "rotation", "brightness", "contrast", "saturation", "hue", "translation")
    settings = dict.fromkeys(settings, 0) | {"random_crop": False} if off else {}
    axes = explore.operations_figure(Experiment(image_size=40, **settings), load_photos(str(photo_folder)), 0).axes
    clean, *others = [np.asarray(ax.get_images()[0].get_array(), int) for ax in axes]
    differences = [np.abs(other - clean).mean() for other in others]
    assert len(differences) == 8
    assert max(differences) < 2 if off else min(differences) > 2  # hue rounds on its way to HSV and back


def test_a_sheet_shows_the_photos_of_its_class_alone_each_once(photo_folder):
    photos = load_photos(str(photo_folder))
    sheet = explore.class_sheet(photos, "broom", count=30)
    files = [ax.get_title() for ax in sheet.axes if ax.get_images()]
    assert files == [f"{index}.jpg" for index in range(8)]
    for ax, index in zip(sheet.axes, np.flatnonzero(photos.labels == 1), strict=True):
        np.testing.assert_array_equal(ax.get_images()[0].get_array(), photos.read(index))
