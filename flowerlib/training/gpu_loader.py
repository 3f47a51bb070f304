"""Batches computed on a GPU that has room for all photos.

All pixels are sent once. The host only draws; resizing, rotation and colour jitter are batched tensor operations
with the reference's own arithmetic (`flowerlib.training.augment.augment_reference`). The filter's sums are exact in
float32, so that neither padding nor the batch size changes a view. No batch asks the device for a value: the host
runs ahead of it, and the network never waits for photos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from flowerlib.data.cache import CHANNELS, PixelCache
from flowerlib.data.crop import centre_box
from flowerlib.data.photos import PhotoSet
from flowerlib.experiment import Experiment
from flowerlib.training.augment import CENTRE, Augmentation, draw_augmentation
from flowerlib.training.loader import CPU, Batch, Loader, pinned, send

# the views of so many photos are computed together, four batches of 32: fewer where their windows have more pixels
PHOTOS_PER_LAUNCH, PIXELS_PER_LAUNCH = 128, 128 * 500 * 500
COMPARED = 32  # photos, on which a device is compared with the CPU
MOST_DIFFERENCE = 0.1  # grey levels, on average: the same arithmetic may differ by rounding, in a few pixels
FIXED_POINT = 1 << 16  # Pillow computes positions and filters' weights in 65,536ths


@dataclass(frozen=True)
class GpuLoader(Loader):
    """A `Loader` that keeps the photos on ``device`` and computes the same views there; its batches stay there.

    The views differ from the other loader's only by rounding, and are closer to the reference.
    """

    def __post_init__(self):
        _ = self._pixels  # sent now, so that the first epoch's duration doesn't include it

    @cached_property
    def _pixels(self) -> torch.Tensor:
        # memory-mapped, so that the host never holds all of them
        pixels = torch.from_numpy(np.memmap(self.photos.pixels.file, np.uint8, mode="c"))
        return pixels.view(-1, CHANNELS).to(self.device)

    def _augmented_batches(self, batches: Sequence[np.ndarray], epoch: int) -> Iterator[Batch]:
        def draw(index: int) -> Augmentation:
            height, width = self.photos.pixels.sizes[index].tolist()
            return draw_augmentation(self.experiment, epoch, index, width, height)

        return self._on_device(augment_batch, draw, batches)

    def _clean_batches(self, batches: Sequence[np.ndarray]) -> Iterator[Batch]:
        return self._on_device(crop_batch, lambda index: CENTRE, batches)

    def _on_device(
        self,
        compute: Callable[..., torch.Tensor],
        draw: Callable[[int], Augmentation],
        batches: Sequence[np.ndarray],
    ) -> Iterator[Batch]:
        pixels, together = self.photos.pixels, max(1, PHOTOS_PER_LAUNCH // self.experiment.batch_size)
        for start in range(0, len(batches), together):
            group = batches[start : start + together]
            indices = np.concatenate(group)
            draws = [draw(int(index)) for index in indices]
            views = pack(draws, pixels.starts[indices], pixels.sizes[indices], self.experiment.image_size)
            images = torch.cat([self._launch(compute, part) for part in _launches(views, self.experiment.image_size)])
            labels = self._sent(self.photos.labels[indices])
            sizes = [len(batch) for batch in group]
            yield from zip(images.split(sizes), labels.split(sizes), strict=True)

    def _launch(self, compute: Callable[..., torch.Tensor], views: Views) -> torch.Tensor:
        padded = views.windows.max(axis=0).tolist()
        sent = Views(*(self._sent(column) for column in views))
        return compute(self._pixels, sent, padded, self.experiment.image_size)

    def _sent(self, array: np.ndarray) -> torch.Tensor:
        return send(pinned(array, self.device), self.device)


class Views(NamedTuple):
    """What is done to n photos, one row each: packed as arrays, used as tensors.

    Attributes:
        windows: int64 (n, 2): height and width of the part of the photo that is read, in pixels.
        origins: int64 (n,): the window's first pixel, counted through all photos.
        strides: int64 (n,): pixels from one row of the window to the next.
        boxes: float64 (n, 2, 2): vertically and horizontally, where in the window the crop begins, and its length.
        turns: int64 (n, 2, 3): flip and rotation, as `_moved` takes them.
        blends: float32 (n, 6, 3): three blends before the hue shift and three after, as `_blended` takes them.
        hues: float32 (n,): the hue shift in 255ths of the colour circle; NaN for none.
        shifts: int64 (n, 2, 3): the final shift, as `_moved` takes it.
    """

    windows: np.ndarray | torch.Tensor
    origins: np.ndarray | torch.Tensor
    strides: np.ndarray | torch.Tensor
    boxes: np.ndarray | torch.Tensor
    turns: np.ndarray | torch.Tensor
    blends: np.ndarray | torch.Tensor
    hues: np.ndarray | torch.Tensor
    shifts: np.ndarray | torch.Tensor


def pick_loader(experiment: Experiment, photos: PhotoSet, device: torch.device) -> Loader:
    """The loader for a device: on the device if the photos fit there, otherwise in threads on the host.

    One on the device must show first that it computes the same views there. If not, this is printed.
    """
    if fits(experiment, photos, device):
        on_device = GpuLoader(experiment, photos, device)
        difference = mean_difference(on_device, GpuLoader(experiment, photos, CPU))
        if difference <= MOST_DIFFERENCE:
            return on_device
        print(
            f"Photos augmented on {device} differ from the CPU's by {difference:.1f} grey levels on average. "
            "So the CPU augments them, which may be slower."
        )
    return Loader(experiment, photos, device)


def mean_difference(one: Loader, other: Loader) -> float:
    """How much two loaders' augmented views of some photos differ, in grey levels."""
    some = np.linspace(0, len(one.photos) - 1, min(COMPARED, len(one.photos))).astype(int)
    views, others = (torch.cat([images for images, _ in loader.augmented(some, 0)]).cpu() for loader in (one, other))
    return (views.float() - others.float()).abs().mean().item()


def fits(experiment: Experiment, photos: PhotoSet, device: torch.device) -> bool:
    """Whether a device has room for the photos and for computing their views.

    They may take half of what is free; the other half is for the network. Always false except on CUDA: on other
    devices the threads are faster.
    """
    if device.type != "cuda" or not isinstance(photos.pixels, PixelCache):
        return False
    free, _ = torch.cuda.mem_get_info(device)
    largest = int(photos.pixels.sizes.prod(axis=1).max())
    computed = max(PHOTOS_PER_LAUNCH, experiment.batch_size + 1) * experiment.image_size**2
    # peak memory in bytes, for each pixel that is read and each that is computed
    working = 40 * max(PIXELS_PER_LAUNCH, largest) + 100 * computed
    return int(photos.pixels.starts[-1]) + working < free / 2


def _launches(views: Views, size: int) -> Iterator[Views]:
    """Parts of packed views, in order, each of so few photos that its padded windows are not too many pixels."""
    count, padded = len(views.windows), views.windows.max(axis=0)
    if count == 1 or count * np.maximum(padded, size).prod() <= PIXELS_PER_LAUNCH:
        yield views
    else:
        for part in (slice(None, count // 2), slice(count // 2, None)):
            yield from _launches(Views(*(column[part] for column in views)), size)


def pack(draws: Sequence[Augmentation], starts: np.ndarray, sizes: np.ndarray, size: int) -> Views:
    """Pack the draws for n photos into arrays.

    Args:
        draws: one augmentation per photo.
        starts: where each photo begins in the cache, in bytes: int64 (n,).
        sizes: height and width of each photo: int64 (n, 2).
        size: side of the views, in pixels.
    """
    places = np.array([_place(draw.crop, *photo, size) for draw, photo in zip(draws, sizes.tolist(), strict=True)])
    (top, left), windows = places[..., 0].astype(np.int64).T, places[..., 1].astype(np.int64)
    strides = sizes[:, 1]
    jitters = [_ordered(draw.jitter) for draw in draws]
    right, down = np.array([draw.shift for draw in draws], np.int64).T
    one, zero = np.ones_like(right), np.zeros_like(right)
    return Views(
        windows=windows,
        origins=starts // CHANNELS + top * strides + left,
        strides=strides,
        boxes=places[..., 2:],
        turns=_turns(draws, size),
        blends=np.stack([blends for blends, _ in jitters]),
        hues=np.array([hue for _, hue in jitters], np.float32),
        shifts=FIXED_POINT * np.moveaxis(np.array([[one, zero, -right], [zero, one, -down]]), -1, 0),
    )


def _place(crop: tuple[int, int, int, int] | None, height: int, width: int, size: int) -> list[tuple]:
    """Vertically and horizontally: the window's first pixel and length, where in it the crop begins, its length."""
    if crop:
        top, left, crop_height, crop_width = crop
        return [(top, crop_height, 0, crop_height), (left, crop_width, 0, crop_width)]
    left, top, right, bottom = centre_box(width, height, size)
    return [_with_margin(top, bottom, height, size), _with_margin(left, right, width, size)]


def _with_margin(start: float, end: float, length: int, size: int) -> tuple[int, int, float, float]:
    # like Pillow, the filter reads beyond the box, but not beyond the photo
    reach = max((end - start) / size, 1)
    first, last = max(math.floor(start - reach), 0), min(math.ceil(end + reach), length)
    return first, last - first, start - first, end - start


def _turns(draws: Sequence[Augmentation], size: int) -> np.ndarray:
    angles = np.radians([draw.angle for draw in draws])
    cosine, sine, centre = np.cos(angles), np.sin(angles), size / 2
    source = np.array(
        [
            # the source of a pixel's centre, hence the halves
            [cosine, -sine, centre * (1 - cosine + sine) + (cosine - sine) / 2],
            [sine, cosine, centre * (1 - cosine - sine) + (sine + cosine) / 2],
        ]
    )
    turns = np.floor(np.moveaxis(source, -1, 0) * FIXED_POINT + 0.5).astype(np.int64)
    flipped = [draw.flip for draw in draws]
    turns[flipped, 0] = [0, 0, size * FIXED_POINT - 1] - turns[flipped, 0]  # pixel i becomes size - 1 - i
    return turns


def _ordered(jitter: tuple[tuple[str, float], ...]) -> tuple[np.ndarray, float]:
    """An image's six blends and its hue shift.

    Brightness, contrast and saturation are the same operation: a blend with black, with the mean grey or with the
    grey image. Only the hue shift is different, so that images with the four in any order go through the same
    sequence of operations: three blends, the hue shift, three blends. Those that an image doesn't need change
    nothing.
    """
    blends, hue, place = np.tile(np.float32([1, 0, 0]), (6, 1)), math.nan, 0
    for name, amount in jitter:
        if name == "hue":
            hue, place = int(amount * 255), 3
        else:
            blends[place] = amount, name == "saturation", name == "contrast"
            place += 1
    return blends, hue


def augment_batch(pixels: torch.Tensor, views: Views, padded: Sequence[int], size: int) -> torch.Tensor:
    """Apply packed augmentations, on any device that has float64.

    Args:
        pixels: those of all photos, uint8 (pixels, 3).
        views: what to do to n photos, on the same device.
        padded: the windows' largest height and width, so that the device needn't be asked for them.
        size: side of the result, in pixels.

    Returns:
        uint8 (n, size, size, 3).
    """
    images = _moved(_resized(pixels, views, padded, size), views.turns)
    for place in range(3):
        images = _blended(images, views.blends[:, place])
    images = _hue_shifted(images, views.hues)
    for place in range(3, 6):
        images = _blended(images, views.blends[:, place])
    return _moved(images, views.shifts).byte()


def crop_batch(pixels: torch.Tensor, views: Views, padded: Sequence[int], size: int) -> torch.Tensor:
    """`augment_batch` for views that are only cropped."""
    return _resized(pixels, views, padded, size).byte()


def _resized(pixels: torch.Tensor, views: Views, padded: Sequence[int], size: int) -> torch.Tensor:
    """Crops resized to (n, size, size, 3): horizontally, then vertically, both rounded to whole levels."""
    down, right = (
        torch.minimum(torch.arange(padded[axis], device=pixels.device), views.windows[:, axis, None] - 1)
        for axis in range(2)
    )
    places = views.origins[:, None, None] + down[:, :, None] * views.strides[:, None, None] + right[:, None, :]
    weights_down, weights_right = (
        _triangles(views.windows[:, axis], views.boxes[:, axis], padded[axis], size) for axis in range(2)
    )
    # evaluation asks for batches within autocast, where bfloat16 would lose whole grey levels
    with torch.autocast(pixels.device.type, enabled=False):
        images = torch.einsum("nxw,nhwc->nhxc", weights_right, pixels[places].float())
        images = torch.einsum("nyh,nhxc->nyxc", weights_down, (images + 0.5).floor())
        return (images + 0.5).floor()


def _triangles(lengths: torch.Tensor, boxes: torch.Tensor, taps: int, size: int) -> torch.Tensor:
    """Weights of the antialiased bilinear filter along one axis: float32 (n, size, taps).

    Where the image shrinks, the triangle is wider by the same factor. Weights are whole 65,536ths: with 8-bit levels
    every partial sum is exact in float32, so that padding, batching and the order of summation change nothing.
    """
    start, length = boxes[:, :, None, None].unbind(1)
    step = length / size
    centres = start + step * (torch.arange(size, device=boxes.device)[:, None] + 0.5)
    inputs = torch.arange(taps, device=boxes.device) + 0.5
    weights = (1 - (inputs - centres).abs() / step.clamp(min=1)).clamp(min=0) * (inputs < lengths[:, None, None])
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return ((weights * FIXED_POINT).round() / FIXED_POINT).float()


def _moved(images: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Each pixel taken from the one that contains its source; black where that is outside.

    Args:
        images: (n, size, size, 3).
        sources: the affine map from (column, row, 1) to x and y of a pixel's source, in 65,536ths: int64 (n, 2, 3).
    """
    count, size = images.shape[:2]
    steps = torch.arange(size, device=images.device)
    per_column, per_row, offset = sources[..., None, None].unbind(2)
    x, y = ((per_column * steps + per_row * steps[:, None] + offset) >> 16).unbind(1)
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    photo = torch.arange(count, device=images.device)[:, None, None]
    return images[photo, y.clamp(0, size - 1), x.clamp(0, size - 1)] * inside[..., None]


def _blended(images: torch.Tensor, blends: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast or saturation: a blend with black, the mean grey or the grey image.

    Args:
        images: whole levels, float32 (n, size, size, 3).
        blends: the factor, and 1 for the grey image and 1 for the mean grey, else 0: float32 (n, 3).
    """
    factor, with_grey, with_mean = blends[..., None, None, None].unbind(1)
    red, green, blue = images.split(1, dim=-1)
    grey = ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()  # exact, as Pillow's integers
    mean = (grey.mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor()
    other = with_grey * grey + with_mean * mean
    return (other + factor * (images - other)).clamp(0, 255).floor()


def _hue_shifted(images: torch.Tensor, hues: torch.Tensor) -> torch.Tensor:
    """Shift the hue, with hue, saturation and value in 8 bits as in Pillow: the hue is a circle of 256 steps."""
    value, spread = images.amax(dim=-1), images.amax(dim=-1) - images.amin(dim=-1)
    # single and double precision as in Pillow: many colours lie on the boundary between two of its levels
    red, green, blue = ((value[..., None] - images) / spread.clamp(min=1)[..., None]).double().unbind(dim=-1)
    hue = torch.where(green == 0, 2 + red - blue, 4 + green - red)
    hue = torch.where(red == 0, blue - green, hue).float().double()
    hue = (((hue / 6 + 1) % 1).float().double() * 255).floor().float()
    saturation = ((spread / value.clamp(min=1)).double() * 255).floor().float() / 255
    hue = (hue + hues[:, None, None]) % 256
    # in two of the circle's six sectors a channel has the full value, in two it is lower by the saturation
    sectors = (hue[..., None] * 6 / 255 + torch.arange(5, 0, -2, device=images.device)) % 6
    fall = torch.minimum(sectors, 4 - sectors).clamp(0, 1)
    shifted = (value[..., None] * (1 - saturation[..., None] * fall) + 0.5).floor()
    return torch.where(hues.isnan()[:, None, None, None], images, shifted)
