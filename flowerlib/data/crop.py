"""A photo's clean view: what a network sees of it when nothing is augmented."""

from __future__ import annotations

import numpy as np
from PIL import Image


def centre_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """A photo's view for clean evaluation: uint8 (height, width, 3) to uint8 (size, size, 3).

    Equal to torchvision's Resize and CenterCrop, but in one step: a photo of 20,000 x 10 pixels is never enlarged to
    512,000 x 256 on the way.
    """
    height, width, _ = pixels.shape
    box = centre_box(width, height, size)
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box=box))


def centre_box(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a photo's clean view of ``size`` pixels a side, in the photo's pixels."""
    shorter, side = min(width, height), round(size * 256 / 224)
    box = []
    for length in (width, height):
        resized = side * length // shorter
        start = round((resized - size) / 2)
        box.append((start * length / resized, (start + size) * length / resized))
    (left, right), (top, bottom) = box
    return left, top, right, bottom
