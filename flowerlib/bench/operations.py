"""How long each library takes for each augmentation operation on one thread: the reason for what `augment` uses."""

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
    """Milliseconds per photo for each operation and library: medians over interleaved repetitions.

    The operations are the paper's, at its sizes; all but the crop act on 224 x 224 pixels. kornia takes part
    where it is installed, on a whole batch at once, which is what it is made for.

    Args:
        photos: some of these are used, drawn with a fixed seed.
        repetitions: how often each operation is measured.

    Returns:
        One row per operation, one column per library; NaN where a library lacks the operation.
    """
    operations = _operations(photos)
    milliseconds: dict[tuple[str, str], list[float]] = {key: [] for key in operations}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repetitions + 1):
            for key, run in operations.items():
                begun = perf_counter()
                run()
                milliseconds[key].append((perf_counter() - begun) * 1000 / PHOTOS)
    finally:
        torch.set_num_threads(threads)
    medians = pd.Series({key: median(values[1:]) for key, values in milliseconds.items()})  # the first is a warm-up
    table = medians.unstack(sort=False).round(3)
    return table.rename_axis(index="operation").reset_index()


def _operations(photos: PhotoSet) -> dict[tuple[str, str], Callable[[], object]]:
    """By operation and library, a function that applies the operation to ``PHOTOS`` photos."""
    experiment = Experiment()
    size, angle, factor, hue = experiment.image_size, experiment.rotation, 1 + experiment.contrast, experiment.hue
    chosen = np.random.default_rng(0).integers(len(photos), size=PHOTOS)
    pixels = [photos.read(int(index)) for index in chosen]
    draws = [
        draw_augmentation(experiment, 0, int(index), image.shape[1], image.shape[0])
        for index, image in zip(chosen, pixels, strict=True)
    ]
    views = [ours.centre_crop(image, size) for image in pixels]
    pillow_images = [Image.fromarray(image) for image in views]
    tensors = [torch.tensor(image).permute(2, 0, 1) for image in views]

    def each(images: list, function: Callable, *amounts: float) -> Callable[[], object]:
        return lambda: [function(image, *amounts) for image in images]

    def cropped(resize: Callable) -> Callable[[], object]:
        return lambda: [resize(image, draw.crop) for image, draw in zip(pixels, draws, strict=True)]

    def everything(apply: Callable) -> Callable[[], object]:
        return lambda: [apply(image, draw, size) for image, draw in zip(pixels, draws, strict=True)]

    def pillow_crop(image: np.ndarray, crop: tuple) -> object:
        return pillow.resized_crop(Image.fromarray(image), *crop, [size, size])

    def tensor_crop(image: np.ndarray, crop: tuple) -> object:
        return v2.resized_crop(torch.from_numpy(image).permute(2, 0, 1), *crop, [size, size], antialias=True)

    operations = {
        ("crop and resize", "Pillow"): cropped(pillow_crop),
        ("crop and resize", "torchvision v2"): cropped(tensor_crop),
        ("crop and resize", OURS): cropped(lambda image, crop: ours._resized_crop(image, crop, size)),
        ("rotate", "Pillow"): each(pillow_images, pillow.rotate, angle),
        ("rotate", "torchvision v2"): each(tensors, v2.rotate, angle, InterpolationMode.NEAREST),
        ("rotate", OURS): each(views, ours._flipped_and_rotated, False, angle),
    }
    for name, amount in {**dict.fromkeys(("brightness", "contrast", "saturation"), factor), "hue": hue}.items():
        operations[name, "Pillow"] = each(pillow_images, getattr(pillow, f"adjust_{name}"), amount)
        operations[name, "torchvision v2"] = each(tensors, getattr(v2, f"adjust_{name}"), amount)
        operations[name, OURS] = each(views, ours._JITTER[name], amount)
    operations |= _with_kornia(tensors, angle, factor, hue)
    operations["all of it", "Pillow"] = everything(augment_reference)
    operations["all of it", OURS] = everything(augment)
    return operations


def _with_kornia(images: list[torch.Tensor], angle: float, factor: float, hue: float) -> dict:
    if not importlib.util.find_spec("kornia"):
        return {}
    from kornia import enhance
    from kornia.geometry import transform

    batch = torch.stack(images).float() / 255
    degrees = torch.full((len(images),), angle)
    return {
        ("rotate", "kornia"): lambda: transform.rotate(batch, degrees, mode="nearest"),
        ("brightness", "kornia"): lambda: enhance.adjust_brightness(batch, factor - 1),
        ("contrast", "kornia"): lambda: enhance.adjust_contrast(batch, factor),
        ("saturation", "kornia"): lambda: enhance.adjust_saturation(batch, factor),
        ("hue", "kornia"): lambda: enhance.adjust_hue(batch, hue * 2 * torch.pi),
    }
