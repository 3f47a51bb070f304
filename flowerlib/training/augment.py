"""The paper's data augmentation (section 3.1): drawn, then applied.

Drawing and applying are separate, so that the fast path and the reference can be given the same draws. An
`Augmentation` depends on (seed, epoch, index) alone: neither the batch size, the number of threads nor a resume
changes what happens to a photo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as F

from flowerlib.data.crop import centre_crop
from flowerlib.experiment import CROP_AREA, CROP_RATIO, Experiment
from flowerlib.runs import InputInfo

# Version of the random draws, of augmentation and dropout: run.json and checkpoints record it, because a session
# that went on with other draws would be a mixture of two. 2: leaving out the crop changes no other draw, and dropout
# depends on the whole seed. 3: of a photo with a shorter side above 800 pixels, a smaller one is kept and cropped.
DRAWS = 3


@dataclass(frozen=True)
class Augmentation:
    """What is done to one photo, in this order.

    Attributes:
        crop: top, left, height and width in the photo's pixels; None for the clean centre crop.
        flip: whether it is mirrored left to right.
        angle: rotation in degrees, counter-clockwise; pixels from outside are black.
        jitter: (name, amount) for brightness, contrast, saturation (factors) and hue (fraction of the colour
            circle), in the order in which they are applied.
        shift: pixels to the right, and down; pixels from outside are black.
    """

    crop: tuple[int, int, int, int] | None
    flip: bool
    angle: float
    jitter: tuple[tuple[str, float], ...]
    shift: tuple[int, int]


CENTRE = Augmentation(crop=None, flip=False, angle=0.0, jitter=(), shift=(0, 0))  # the clean centre crop


def draw_augmentation(experiment: Experiment, epoch: int, index: int, width: int, height: int) -> Augmentation:
    """Draw one photo's augmentation; it depends on (seed, epoch, index) and the photo's size alone.

    The distributions are those of torchvision's RandomResizedCrop, RandomHorizontalFlip, RandomRotation,
    ColorJitter and RandomAffine.
    """
    rng = np.random.default_rng((experiment.seed, epoch, index))
    # everything is drawn, used or not: leaving one operation out must not change the others
    crop = _draw_crop(rng, width, height)
    flip = bool(rng.random() < experiment.flip)
    angle = rng.uniform(-experiment.rotation, experiment.rotation)
    jitter = [
        ("brightness", rng.uniform(1 - experiment.brightness, 1 + experiment.brightness)),
        ("contrast", rng.uniform(1 - experiment.contrast, 1 + experiment.contrast)),
        ("saturation", rng.uniform(1 - experiment.saturation, 1 + experiment.saturation)),
        ("hue", rng.uniform(-experiment.hue, experiment.hue)),
    ]
    ordered = [jitter[position] for position in rng.permutation(len(jitter))]
    # even a hue shift of zero costs precision: Pillow rounds on the way to HSV and back
    used = tuple((name, amount) for name, amount in ordered if getattr(experiment, name))
    farthest = experiment.translation * experiment.image_size
    shift = tuple(round(offset) for offset in rng.uniform(-farthest, farthest, size=2))
    return Augmentation(crop if experiment.random_crop else None, flip, angle, used, shift)


def each_alone(experiment: Experiment, index: int, width: int, height: int) -> dict[str, Augmentation]:
    """Each operation alone, by its name: the crop of epoch 0, the others as strong as the settings allow."""
    jitter = {
        f"{name} ×{1 + getattr(experiment, name):g}": (name, 1 + getattr(experiment, name))
        for name in ("brightness", "contrast", "saturation")
    }
    shift = round(experiment.translation * experiment.image_size)
    return {
        "crop": replace(CENTRE, crop=draw_augmentation(experiment, 0, index, width, height).crop),
        "flip": replace(CENTRE, flip=experiment.flip > 0),
        f"rotation {experiment.rotation:g}°": replace(CENTRE, angle=experiment.rotation),
        **{title: replace(CENTRE, jitter=(each,)) for title, each in jitter.items()},
        f"hue {experiment.hue:+g}": replace(CENTRE, jitter=(("hue", experiment.hue),)),
        f"translation {experiment.translation:g}": replace(CENTRE, shift=(shift, shift)),
    }


def _draw_crop(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = width * height * rng.uniform(*CROP_AREA)
        ratio = math.exp(rng.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(height - crop_height, endpoint=True))
            left = int(rng.integers(width - crop_width, endpoint=True))
            return top, left, crop_height, crop_width
    # the photo is too long or too narrow: take the largest centre crop with an allowed aspect ratio
    crop_width = min(width, max(1, round(height * CROP_RATIO[1])))
    crop_height = min(height, max(1, round(width / CROP_RATIO[0])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def augment(pixels: np.ndarray, augmentation: Augmentation, size: int) -> np.ndarray:
    """Apply an augmentation in a few fast passes; equal to `augment_reference` except for rounding.

    Args:
        pixels: a photo, uint8 (height, width, 3).
        augmentation: what to apply.
        size: side of the result, in pixels.

    Returns:
        uint8 array (size, size, 3).
    """
    image = _resized_crop(pixels, augmentation.crop, size)
    image = _flipped_and_rotated(image, augmentation.flip, augmentation.angle)
    for name, amount in augmentation.jitter:
        image = _JITTER[name](image, amount)
    return _shifted(image, *augmentation.shift)


def _resized_crop(pixels: np.ndarray, crop: tuple[int, int, int, int] | None, size: int) -> np.ndarray:
    if crop is None:
        return centre_crop(pixels, size)
    top, left, height, width = crop
    # PyTorch's kernel is three times as fast on a single thread, but it would start its own threads in every loading
    # thread, and these would take cores from the network
    cropped = Image.fromarray(pixels[top : top + height, left : left + width])
    return np.asarray(cropped.resize((size, size), Image.Resampling.BILINEAR))


def _flipped_and_rotated(image: np.ndarray, flip: bool, angle: float) -> np.ndarray:
    """Flip and rotate in one step, by the place that each pixel of the result comes from."""
    size = len(image)
    cosine, sine, centre = math.cos(math.radians(angle)), math.sin(math.radians(angle)), size / 2
    source = np.array(
        [
            [cosine, -sine, centre * (1 - cosine + sine)],
            [sine, cosine, centre * (1 - cosine - sine)],
        ]
    )
    if flip:
        source[0] = [0, 0, size] - source[0]
    # OpenCV takes the pixel whose centre is nearest to a point, Pillow the pixel that contains it
    source[:, 2] += source[:, 0] / 2 + source[:, 1] / 2 - 0.5
    return cv2.warpAffine(image, source, (size, size), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)


_LEVELS = np.arange(256, dtype=np.float64)


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.LUT(image, np.clip(factor * _LEVELS, 0, 255).astype(np.uint8))


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    mean = int(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean() + 0.5)  # rounded, as in Pillow
    return cv2.LUT(image, np.clip(mean + factor * (_LEVELS - mean), 0, 255).astype(np.uint8))


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    # OpenCV rounds to the nearest level, Pillow rounds down
    return cv2.addWeighted(image, factor, grey, 1 - factor, -0.499)


def _hue(image: np.ndarray, shift: float) -> np.ndarray:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)  # a circle: the sum wraps round
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


_JITTER = {"brightness": _brightness, "contrast": _contrast, "saturation": _saturation, "hue": _hue}


def _shifted(image: np.ndarray, right: int, down: int) -> np.ndarray:
    size = len(image)
    result = np.zeros_like(image)
    result[max(down, 0) : size + down, max(right, 0) : size + right] = image[
        max(-down, 0) : size - down, max(-right, 0) : size - right
    ]
    return result


def augment_reference(pixels: np.ndarray, augmentation: Augmentation, size: int) -> np.ndarray:
    """Apply an augmentation through torchvision and Pillow: what `augment` is tested against."""
    if augmentation.crop is None:
        image = Image.fromarray(centre_crop(pixels, size))
    else:
        image = F.resized_crop(Image.fromarray(pixels), *augmentation.crop, [size, size])
    if augmentation.flip:
        image = F.hflip(image)
    image = F.rotate(image, augmentation.angle)
    for name, amount in augmentation.jitter:
        image = getattr(F, f"adjust_{name}")(image, amount)
    return np.asarray(F.affine(image, angle=0, translate=augmentation.shift, scale=1, shear=0))


def normalize(images: torch.Tensor, standardization: InputInfo) -> torch.Tensor:
    """uint8 images (n, height, width, 3) as network input: float32 (n, 3, height, width), channels last.

    Scaled to [0, 1], then standardized by the network's mean and standard deviation, in one multiplication and one
    addition.
    """
    scale, offset = _scale_and_offset(images.device, standardization)
    return (images * scale - offset).permute(0, 3, 1, 2)


@cache
def _scale_and_offset(device: torch.device, standardization: InputInfo) -> tuple[torch.Tensor, torch.Tensor]:
    # kept on the device: sending them with every batch would make the host wait for a GPU
    mean, std = torch.tensor(standardization.mean), torch.tensor(standardization.std)
    return (1 / (255 * std)).to(device), (mean / std).to(device)
