"""Looking at photos before training: their sizes, what is in each class, and what augmentation does to one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from flowerlib.data.photos import PhotoSet
from flowerlib.experiment import Experiment
from flowerlib.figures import PICTURE, contact_sheet, in_lines
from flowerlib.training.augment import CENTRE, augment, each_alone
from flowerlib.training.loader import Loader

SIDE = 224  # pixels: the longer side of a whole photo in a figure


def size_table(photos: PhotoSet) -> pd.DataFrame:
    """A row a class: ``photos``, and smallest, median and largest ``width`` and ``height`` in pixels, as kept."""
    table = pd.DataFrame(photos.pixels.sizes, columns=["height", "width"])
    groups = table.groupby(np.array(photos.classes)[photos.labels])[["width", "height"]]
    summary = groups.agg(["min", "median", "max"]).astype(int)
    summary.insert(0, ("photos", ""), groups.size())
    return summary


def class_sheet(photos: PhotoSet, name: str, count: int = 16) -> Figure:
    """Whole photos of a class, spread evenly over its files, under their files' names."""
    members = np.flatnonzero(photos.labels == photos.classes.index(name))
    shown = members[np.linspace(0, len(members) - 1, min(count, len(members))).astype(int)]
    files = [in_lines(photos.paths[index].split("/")[-1], PICTURE) for index in shown]
    figure = contact_sheet(whole(photos, shown), files)
    figure.suptitle(f"{in_lines(name, 8 * PICTURE)}: {len(shown)} of {len(members):,}")
    return figure


def views_figure(experiment: Experiment, photos: PhotoSet, index: int) -> Figure:
    """A photo beside its augmented views in the first eight epochs."""
    loader = Loader(experiment, photos)
    views = [loader.views(np.array([index]), epoch)[0] for epoch in range(8)]
    titles = ["the photo", *(f"epoch {epoch}" for epoch in range(len(views)))]
    return contact_sheet([*whole(photos, [index]), *views], titles, columns=len(titles))


def operations_figure(experiment: Experiment, photos: PhotoSet, index: int) -> Figure:
    """A photo's clean view beside each operation of the augmentation, alone and as strong as the settings allow."""
    pixels = photos.read(index)
    height, width, _ = pixels.shape
    draws = {"none": CENTRE} | each_alone(experiment, index, width, height)
    return contact_sheet(
        [augment(pixels, draw, experiment.image_size) for draw in draws.values()], [*draws], len(draws)
    )


def whole(photos: PhotoSet, indices: np.ndarray | list[int]) -> list[np.ndarray]:
    """Whole photos, reduced to look at: uint8 (height, width, 3) each, of `SIDE` pixels at most."""
    pictures = [Image.fromarray(photos.read(int(index))) for index in indices]
    for picture in pictures:
        picture.thumbnail((SIDE, SIDE))
    return [np.asarray(picture) for picture in pictures]
