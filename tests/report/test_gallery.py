import re
from dataclasses import replace
from itertools import pairwise

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from made_up import changed
from PIL import Image
from torchvision.models import get_model

from flowerlib.data.crop import centre_crop
from flowerlib.data.duplicates import COLUMNS, IDENTICAL, SIMILAR
from flowerlib.data.photos import load_photos
from flowerlib.errors import UserError
from flowerlib.experiment import Experiment
from flowerlib.report import gallery
from flowerlib.report.gallery import why_no_gallery
from flowerlib.report.statistics import confident_mistakes, outcomes, unsure_hits
from flowerlib.training import trained
from flowerlib.training.augment import normalize
from flowerlib.training.checkpoint import LAST
from flowerlib.training.loop import train_and_evaluate
from flowerlib.training.trained import last_feature_layer, load_network

matplotlib.use("Agg")

TINY = {"weights": "none", "image_size": 40, "epochs": 1, "batch_size": 8, "device": "cpu", "precision": "float32"}
LONG = "my $roses & $co, of the far west country"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A session of one epoch on photos of noise, and its photos; nothing of it may be changed."""
    folder = tmp_path_factory.mktemp("session")
    random = np.random.default_rng(0)
    for name in ("aster", "broom", "clover"):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.integers(0, 256, (48 + 2 * index, 80, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{index}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERLIB_CACHE", str(folder / "cache"))
        photos = load_photos(str(folder / "photos"))
        run = train_and_evaluate(Experiment(data=str(folder / "photos"), **TINY), photos, folder / "run")
    return run, photos


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def shown(ax):
    (image,) = ax.get_images()
    return np.asarray(image.get_array())


def pictures(figure):
    return [ax for ax in figure.axes if ax.get_images()]


def view(photos, path, size=40):
    return centre_crop(photos.read(photos.paths.index(path)), size)


def boxes_of_titles(figure):
    for _ in range(3):  # until matplotlib's layout has settled
        figure.canvas.draw()
    return [ax.title.get_window_extent() for ax in pictures(figure)]


# ---- galleries


@pytest.mark.parametrize("choose", [confident_mistakes, unsure_hits])
def test_a_gallery_shows_the_photos_of_its_table_in_order(session, choose):
    run, photos = session
    rows = choose(run.predictions, 4)
    assert not rows.empty
    axes = pictures(gallery.gallery_figure(run, photos, rows))
    titles = [" ".join(ax.get_title().split()) for ax in axes]
    assert titles == [f"{row.label} → {row.predicted}, {row.confidence:.2f}" for row in rows.itertuples()]
    for ax, photo in zip(axes, rows["photo"], strict=True):
        np.testing.assert_array_equal(shown(ax), view(photos, photo))


@pytest.mark.parametrize("name", [LONG, "An_unbroken_name_of_forty_characters_abc"])
def test_titles_of_long_names_neither_meet_nor_leave_the_page(session, name):
    run, photos = session
    rows = outcomes(run.predictions).assign(label=name, predicted=name)
    figure = gallery.gallery_figure(run, photos, rows)
    boxes = boxes_of_titles(figure)
    assert len(boxes) == len(rows)
    assert not any(left.overlaps(right) for left, right in pairwise(boxes))
    assert all(figure.bbox.padded(1).fully_containsx(x) for box in boxes for x in (box.x0, box.x1))
    assert max(box.y1 for box in boxes) <= figure.bbox.y1 + 1
    for box, ax in zip(boxes, pictures(figure), strict=True):
        assert not any(box.overlaps(other.get_window_extent()) for other in pictures(figure))
        assert ax.get_title().replace("\n", "").replace(" ", "").count(r"\$") == 2 * name.count("$")


def test_of_nothing_a_figure_says_so(session):
    run, photos = session
    nothing = outcomes(run.predictions).iloc[:0]
    for figure in (
        gallery.gallery_figure(run, photos, nothing),
        gallery.heatmap_figure(run, photos, nothing),
        gallery.pairs_figure(photos, pd.DataFrame(columns=COLUMNS)),
    ):
        assert [text.get_text() for text in figure.texts] == ["none"]


def test_pairs_stand_side_by_side_whole_with_their_side_of_the_split(session):
    run, photos = session
    validation = run.predictions["photo"][0]
    training = [path for path in photos.paths if path not in set(run.predictions["photo"])]
    pairs = pd.DataFrame(
        [(IDENTICAL, training[0], validation, 0.0), (SIMILAR, training[1], training[2], 0.126)], columns=COLUMNS
    )
    figure = gallery.pairs_figure(photos, pairs, set(run.predictions["photo"]))
    assert [part.get_suptitle() for part in figure.subfigs if part.axes] == ["identical", "distance 0.13"]
    axes = pictures(figure)
    paths = [training[0], validation, training[1], training[2]]
    sides = ["training", "validation", "training", "training"]
    for ax, path, side in zip(axes, paths, sides, strict=True):
        assert ax.get_title() == f"{path.split('/')[0]}\n{side}"
        np.testing.assert_array_equal(shown(ax), photos.read(photos.paths.index(path)))


# ---- what can be shown


def test_the_photos_of_a_run_are_found_again(session):
    run, photos = session
    assert gallery.photos_of(run).fingerprint == photos.fingerprint
    assert why_no_gallery(run, photos) is None


@pytest.mark.parametrize("source", ["flowers", "synthetic", "/nowhere"])
def test_looking_for_photos_fetches_and_draws_nothing(session, source, tmp_path, monkeypatch):
    run, _ = session
    monkeypatch.setattr(gallery, "DATA", tmp_path)
    if source != "/nowhere":
        monkeypatch.setattr(gallery, "photos_for", lambda *_: pytest.fail("it would fetch them"))
    run = changed(run, settings={"data": source})
    assert gallery.photos_of(run) is None


def test_photos_in_a_named_folder_are_found(session, monkeypatch):
    run, photos = session
    monkeypatch.setenv("FLOWERLIB_DATA", str(photos.root))
    monkeypatch.setattr(gallery, "photos_for", lambda experiment: (experiment.data, experiment.skip_bad))
    run = changed(run, settings={"data": "flowers", "skip_bad": True})
    assert gallery.photos_of(run) == ("flowers", True)


def test_it_is_said_why_there_is_no_gallery(session):
    run, photos = session
    assert "photos are not on this machine" in why_no_gallery(run, None).replace("of the data set photos ", "")
    other = replace(photos, fingerprint="0")
    assert "not those that run was run on" in why_no_gallery(run, other)


@pytest.mark.parametrize("damage", ["missing", "cut short", "other network", "other predictions", "other classes"])
def test_it_is_said_why_there_are_no_heat_maps(session, damage, tmp_path):
    run, photos = session
    checkpoint = (run.folder / LAST).read_bytes()
    run = replace(run, folder=tmp_path)
    if damage != "missing":
        (tmp_path / LAST).write_bytes(checkpoint[: 10_000 if damage == "cut short" else None])
    if damage == "other network":
        run = changed(run, settings={"model": "resnet34"})
    if damage == "other predictions":
        run = replace(run, predictions=run.predictions.assign(aster=run.predictions["aster"] + 0.01))
    if damage == "other classes":
        run = replace(run, predictions=run.predictions.drop(columns="clover"))
    with pytest.raises(UserError, match=re.escape(str(tmp_path / LAST))):
        gallery.heatmap_figure(run, photos, confident_mistakes(run.predictions, 1))


def test_a_network_without_a_last_feature_layer_is_refused_by_name(session, monkeypatch):
    run, photos = session
    with torch.device("meta"):
        transformer = get_model("vit_b_32")
        assert last_feature_layer(get_model("resnext50_32x4d")) is not None
    assert last_feature_layer(transformer) is None
    monkeypatch.setattr(trained, "load_network", lambda run: transformer)
    run = changed(run, settings={"model": "vit_b_32"})
    with pytest.raises(UserError, match="vit_b_32"):
        gallery.heatmap_figure(run, photos, confident_mistakes(run.predictions, 1))


# ---- where a network looks


def test_the_network_is_the_one_that_made_the_predictions(session):
    run, photos = session
    network = load_network(run)
    views = np.stack([view(photos, photo) for photo in run.predictions["photo"]])
    with torch.inference_mode():
        probabilities = network(normalize(torch.from_numpy(views), run.info.input)).softmax(dim=1)
    np.testing.assert_allclose(probabilities, run.predictions[run.classes], atol=1e-5)


def test_heat_maps_stand_under_their_photos(session, monkeypatch):
    run, photos = session
    asked = []

    def corner(network, layer, views, targets, standardization):
        assert standardization == run.info.input
        asked.extend(targets)
        heat = np.zeros((len(views), 40, 40), np.float32)
        heat[:, :20, :20] = 1
        return heat

    monkeypatch.setattr(trained, "grad_cam", corner)
    rows = pd.concat([confident_mistakes(run.predictions, 2), unsure_hits(run.predictions, 1)])
    axes = pictures(gallery.heatmap_figure(run, photos, rows))
    assert [run.classes[target] for target in asked] == rows["predicted"].tolist()
    for column, row in enumerate(rows.itertuples()):
        above, below = axes[column], axes[column + len(rows)]
        assert " ".join(above.get_title().split()) == f"{row.label} → {row.predicted}, {row.confidence:.2f}"
        picture = view(photos, row.photo)
        np.testing.assert_array_equal(shown(above), picture)
        np.testing.assert_array_equal(shown(below)[:20, :20], picture[:20, :20])
        assert shown(below)[20:].mean() < 0.3 * picture[20:].mean()
        assert len(below.collections) == 1  # the outline
