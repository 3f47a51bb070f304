"""The paper's data augmentation (section 3.1): drawn, then applied.

Drawing and applying are apart. An `Augmentation` is drawn from (seed, epoch, index) alone, so that neither
the batch size, the number of workers nor a resumed run changes what happens to a photo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as F

from flowerlib.experiment import Experiment

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CROP_AREA = (0.08, 1.0)  # torchvision's defaults for RandomResizedCrop, which the paper keeps
CROP_RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Augmentation:
    """What is done to one photo, in this order.

    Attributes:
        crop: top, left, height, width in the photo's pixels; None: the clean centre crop.
        flip: mirrored left to right.
        angle: rotation in degrees, counter-clockwise; what comes from outside is black.
        jitter: (name, amount) of brightness, contrast, saturation (factors) and hue (part of the circle),
            in the order in which they act.
        shift: pixels to the right, and down; what comes from outside is black.
    """

    crop: tuple[int, int, int, int] | None
    flip: bool
    angle: float
    jitter: tuple[tuple[str, float], ...]
    shift: tuple[int, int]


def draw_augmentation(experiment: Experiment, epoch: int, index: int, width: int, height: int) -> Augmentation:
    """Draw one photo's augmentation; the same for the same (seed, epoch, index) and photo size.

    Distributions are those of torchvision's RandomResizedCrop, RandomHorizontalFlip, RandomRotation,
    ColorJitter and RandomAffine.
    """
    rng = np.random.default_rng((experiment.seed, epoch, index))
    crop = _draw_crop(rng, width, height) if experiment.random_crop else None
    flip = bool(rng.random() < experiment.flip)
    angle = rng.uniform(-experiment.rotation, experiment.rotation)
    # all are drawn, whatever is used: leaving one out must not change the others
    jitter = [
        ("brightness", rng.uniform(1 - experiment.brightness, 1 + experiment.brightness)),
        ("contrast", rng.uniform(1 - experiment.contrast, 1 + experiment.contrast)),
        ("saturation", rng.uniform(1 - experiment.saturation, 1 + experiment.saturation)),
        ("hue", rng.uniform(-experiment.hue, experiment.hue)),
    ]
    ordered = [jitter[position] for position in rng.permutation(len(jitter))]
    # even a shift of zero costs precision: Pillow's way to HSV and back rounds
    used = tuple((name, amount) for name, amount in ordered if getattr(experiment, name))
    farthest = experiment.translation * experiment.image_size
    shift = tuple(round(offset) for offset in rng.uniform(-farthest, farthest, size=2))
    return Augmentation(crop, flip, angle, used, shift)


def _draw_crop(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = width * height * rng.uniform(*CROP_AREA)
        ratio = math.exp(rng.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(height - crop_height, endpoint=True))
            left = int(rng.integers(width - crop_width, endpoint=True))
            return top, left, crop_height, crop_width
    # the photo is too long or too narrow: its largest centre crop of an allowed shape
    crop_width = min(width, max(1, round(height * CROP_RATIO[1])))
    crop_height = min(height, max(1, round(width / CROP_RATIO[0])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def augment(photo: Image.Image, augmentation: Augmentation, size: int) -> np.ndarray:
    """Apply an augmentation through torchvision and Pillow: the reference.

    Args:
        photo: an RGB photo of any size.
        augmentation: what to do.
        size: side of the result, in pixels.

    Returns:
        uint8 array (size, size, 3).
    """
    if augmentation.crop is None:
        image = Image.fromarray(centre_crop(photo, size))
    else:
        image = F.resized_crop(photo, *augmentation.crop, [size, size])
    if augmentation.flip:
        image = F.hflip(image)
    image = F.rotate(image, augmentation.angle)
    for name, amount in augmentation.jitter:
        image = JITTER[name](image, amount)
    return np.asarray(F.affine(image, angle=0, translate=augmentation.shift, scale=1, shear=0))


JITTER = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


def centre_crop(photo: Image.Image, size: int) -> np.ndarray:
    """The clean evaluation view: shorter side to 8/7 of ``size`` (256 for 224), then the centre.

    Equal to torchvision's Resize and CenterCrop, in one sampling: a photo of 20,000 x 10 pixels is never
    blown up to 512,000 x 256 on the way. Gives a uint8 array (size, size, 3).
    """
    side = round(size * 256 / 224)
    scale = side / min(photo.size)
    box = []
    for length in photo.size:
        resized = int(length * scale)
        start = round((resized - size) / 2)
        box.append((start * length / resized, (start + size) * length / resized))
    (left, right), (top, bottom) = box
    return np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 images (n, height, width, 3) as network input: float32 (n, 3, height, width), channels last.

    To [0, 1], then by ImageNet's mean and standard deviation, in one multiplication and one addition.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=images.device)
    std = torch.tensor(IMAGENET_STD, device=images.device)
    return (images * (1 / (255 * std)) - mean / std).permute(0, 3, 1, 2)
