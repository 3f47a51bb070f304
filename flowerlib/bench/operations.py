"""How long each library takes for the operations of the augmentation, on one thread: why `augment` is what it is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pillow
from torchvision.transforms.v2 import functional as v2

from flowerlib.data.photos import PhotoSet
from flowerlib.experiment import Experiment
from flowerlib.training import augment as ours
from flowerlib.training.augment import augment, augment_reference, draw_augmentation

PHOTOS = 32
OURS = "flowerlib"


def time_operations(photos: PhotoSet, repetitions: int = 5) -> pd.DataFrame:
    """Milliseconds a photo of each operation by each library; a median of interleaved repetitions.

    The operations are the paper's, at its sizes; all but the crop act on 224 x 224 pixels. kornia takes part
    where it is installed, on the batch that it is made for.

    Args:
        photos: of which the first ones of a fixed random order are taken.
        repetitions: of every measurement.

    Returns:
        A row an operation, a column a library; NaN where a library has no such operation.
    """
    timed = _operations(photos)
    found: dict[tuple[str, str], list[float]] = {key: [] for key in timed}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repetitions + 1):
            for key, work in timed.items():
                begun = perf_counter()
                work()
                found[key].append((perf_counter() - begun) * 1000 / PHOTOS)
    finally:
        torch.set_num_threads(threads)
    medians = pd.Series({key: median(values[1:]) for key, values in found.items()})  # the first one warms up
    table = medians.unstack(sort=False).round(3)
    return table.rename_axis(index="operation").reset_index()


def _operations(photos: PhotoSet) -> dict[tuple[str, str], Callable[[], object]]:
    """By operation and library, a call that does it to ``PHOTOS`` photos."""
    experiment = Experiment()
    size, turn, more = experiment.image_size, experiment.rotation, 1 + experiment.contrast
    chosen = np.random.default_rng(0).integers(len(photos), size=PHOTOS)
    pixels = [photos.read(int(index)) for index in chosen]
    draws = [
        draw_augmentation(experiment, 0, int(index), image.shape[1], image.shape[0])
        for index, image in zip(chosen, pixels, strict=True)
    ]
    small = [ours.centre_crop(image, size) for image in pixels]
    on_pillow = [Image.fromarray(image) for image in small]
    on_tensors = [torch.tensor(image).permute(2, 0, 1) for image in small]

    def each(images: list, function: Callable, *amounts: float) -> Callable[[], object]:
        return lambda: [function(image, *amounts) for image in images]

    def cropped(resize: Callable) -> Callable[[], object]:
        return lambda: [resize(image, draw.crop) for image, draw in zip(pixels, draws, strict=True)]

    def whole(apply: Callable) -> Callable[[], object]:
        return lambda: [apply(image, draw, size) for image, draw in zip(pixels, draws, strict=True)]

    def pillow_crop(image: np.ndarray, crop: tuple) -> object:
        return pillow.resized_crop(Image.fromarray(image), *crop, [size, size])

    def tensor_crop(image: np.ndarray, crop: tuple) -> object:
        return v2.resized_crop(torch.from_numpy(image).permute(2, 0, 1), *crop, [size, size], antialias=True)

    timed = {
        ("crop and resize", "Pillow"): cropped(pillow_crop),
        ("crop and resize", "torchvision v2"): cropped(tensor_crop),
        ("crop and resize", OURS): cropped(lambda image, crop: ours._resized_crop(image, crop, size)),
        ("rotate", "Pillow"): each(on_pillow, pillow.rotate, turn),
        ("rotate", "torchvision v2"): each(on_tensors, v2.rotate, turn, InterpolationMode.NEAREST),
        ("rotate", OURS): each(small, ours._flipped_and_rotated, False, turn),
    }
    for name, amount in {"brightness": more, "contrast": more, "saturation": more, "hue": experiment.hue}.items():
        timed[name, "Pillow"] = each(on_pillow, getattr(pillow, f"adjust_{name}"), amount)
        timed[name, "torchvision v2"] = each(on_tensors, getattr(v2, f"adjust_{name}"), amount)
        timed[name, OURS] = each(small, ours._JITTER[name], amount)
    timed |= _with_kornia(on_tensors, turn, more, experiment.hue)
    timed["all of it", "Pillow"] = whole(augment_reference)
    timed["all of it", OURS] = whole(augment)
    return timed


def _with_kornia(images: list[torch.Tensor], turn: float, more: float, hue: float) -> dict:
    if not importlib.util.find_spec("kornia"):
        return {}
    from kornia import enhance
    from kornia.geometry import transform

    batch = torch.stack(images).float() / 255
    degrees = torch.full((len(images),), turn)
    return {
        ("rotate", "kornia"): lambda: transform.rotate(batch, degrees, mode="nearest"),
        ("brightness", "kornia"): lambda: enhance.adjust_brightness(batch, more - 1),
        ("contrast", "kornia"): lambda: enhance.adjust_contrast(batch, more),
        ("saturation", "kornia"): lambda: enhance.adjust_saturation(batch, more),
        ("hue", "kornia"): lambda: enhance.adjust_hue(batch, hue * 2 * torch.pi),
    }
