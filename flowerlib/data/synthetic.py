"""Generated pictures of the five flowers: a data set for a demo without a download."""

from __future__ import annotations

import colorsys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from flowerlib.errors import UserError
from flowerlib.files import make_folder

PHOTOS_PER_CLASS = 150
SIDES = (112, 160)  # shortest and longest side of a picture, in pixels
OVERSAMPLING = 2  # drawn larger, then reduced, because Pillow does not smooth edges

# hue, saturation, brightness; the classes share most colours, so that colour alone does not tell them apart
WHITE, CREAM, YELLOW, ORANGE = (0.12, 0.03, 0.97), (0.12, 0.25, 0.97), (0.14, 0.85, 0.96), (0.10, 0.90, 0.95)
PINK, RED, CRIMSON, PURPLE = (0.94, 0.40, 0.95), (0.99, 0.85, 0.85), (0.95, 0.85, 0.65), (0.82, 0.50, 0.75)
BROWN, LEAF, MOSS, STRAW, SKY = (
    (0.07, 0.6, 0.28),
    (0.29, 0.6, 0.5),
    (0.24, 0.5, 0.3),
    (0.13, 0.4, 0.6),
    (0.57, 0.35, 0.8),
)

Colour = tuple[float, float, float]


def write_synthetic(
    folder: Path, photos_per_class: int = PHOTOS_PER_CLASS, sides: tuple[int, int] = SIDES, seed: int = 0
) -> None:
    """Write ``folder``/<class>/<class>_0000.jpg and so on: all of them, or nothing appears there.

    Args:
        folder: must be empty, or not exist yet.
        photos_per_class: pictures of each of the five flowers.
        sides: shortest and longest side of a picture, in pixels.
        seed: the same seed gives the same bytes with the same version of Pillow.

    Raises:
        UserError: ``folder`` holds something already, or can't be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty. Remove it, or choose another folder for the pictures.")
    make_folder(folder.parent)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            unfinished = Path(scratch, folder.name)
            for name in FLOWERS:
                (unfinished / name).mkdir(parents=True)
                for index in range(photos_per_class):
                    picture = draw_picture(name, index, sides, seed)
                    picture.save(unfinished / name / f"{name}_{index:04d}.jpg", quality=90)
            unfinished.rename(folder)
    except OSError as error:
        raise UserError(
            f"The pictures could not be written to {folder} ({error.strerror}). "
            "Free some space or choose another folder."
        ) from error


def draw_picture(name: str, index: int, sides: tuple[int, int], seed: int) -> Image.Image:
    """Draw one RGB picture of the flower ``name``; it depends only on (seed, name, index) and ``sides``."""
    rng = np.random.default_rng((seed, list(FLOWERS).index(name), index))
    width, height = rng.integers(sides[0], sides[1], size=2, endpoint=True)
    image = _background(rng, OVERSAMPLING * width, OVERSAMPLING * height)
    count = rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])
    petal_colour = _pick(rng, PETAL_COLOURS[name])
    for size in np.sort(rng.uniform(0.32, 0.58, size=count)):  # the nearest flower comes last
        _plant(rng, image, name, size * min(image.size), petal_colour)
    _grass(rng, image, rng.integers(0, 6), nearness=1.5)
    return _photograph(rng, image.reduce(OVERSAMPLING))


class _Pen:
    """Draws in a flower's own coordinates: its centre is the origin, its radius 1, y points down."""

    def __init__(self, rng: np.random.Generator, image: Image.Image, centre, radius: float, turn=0.0, tilt=1.0):
        cos, sin = np.cos(turn), np.sin(turn)
        self.rng, self.centre = rng, np.asarray(centre)
        self.matrix = radius * np.array([[cos, tilt * sin], [-sin, tilt * cos]])
        self.draw = ImageDraw.Draw(image, "RGBA")

    def shape(self, points: np.ndarray, colour: Colour, light: float = 1.0, alpha: float = 1.0) -> None:
        """Fill the polygon of the points (n, 2)."""
        corners = points @ self.matrix + self.centre
        self.draw.polygon([tuple(corner) for corner in corners.tolist()], fill=_rgba(colour, light, alpha))

    def disc(self, radius: float, colour: Colour, light: float = 1.0, at=(0.0, 0.0), alpha: float = 1.0) -> None:
        around = np.linspace(0, 2 * np.pi, 24 if radius > 0.1 else 7, endpoint=False)
        self.shape(radius * _direction(around).T + at, colour, light, alpha)

    def petal(self, angle, length, width, colour, light=1.0, *, blunt=0.6, widest=1.0, at=(0.0, 0.0), alpha=1.0):
        """A petal from ``at``: a dark rim, then its lighter face; ``widest`` above 1 moves its belly outwards."""
        along = np.linspace(0, 1, 11)
        half = 0.5 * width * np.sin(np.pi * along**widest) ** blunt
        outline = np.stack([np.r_[along, along[::-1]] * length, np.r_[half, -half[::-1]]], axis=1)
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        light = light * self.rng.uniform(0.88, 1.08)
        for share, factor in ((1.0, 0.72), (0.8, 1.0)):
            self.shape(outline * (0.5 + 0.5 * share, share) @ rotation + at, colour, light * factor, alpha)

    def ring(self, count, length, width, colour, light=1.0, *, spread=0.08, **petal):
        """Petals all around, of slightly different length and direction."""
        for angle in self.rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count:
            angle, stretch = angle + self.rng.normal(0, spread * 2 / count**0.5), self.rng.normal(1, spread)
            self.petal(angle, length * stretch, width, colour, light, **petal)

    def seeds(self, count, radius, size, colour, light=1.0):
        """Dots in the golden-angle spiral of a flower head."""
        for k in range(count):
            angle, distance = 2.39996 * k, radius * ((k + 0.5) / count) ** 0.5
            self.disc(size, colour, light * self.rng.uniform(0.7, 1.3), distance * _direction(angle))


def _daisy(pen: _Pen, colour: Colour) -> None:
    count = pen.rng.integers(12, 22)
    pen.ring(count, 1.0, 4.2 / count, colour, blunt=0.45, widest=1.4)
    heart, size = _pick(pen.rng, (YELLOW, ORANGE)), pen.rng.uniform(0.24, 0.34)
    pen.disc(size, heart, 0.85)
    pen.seeds(30, size, 0.03, heart)


def _sunflower(pen: _Pen, colour: Colour) -> None:
    count = pen.rng.integers(14, 24)
    for light in (0.8, 1.0):
        pen.ring(count, 1.0, 5.5 / count, colour, light, blunt=0.9, widest=1.2)
    heart, size = _vary(pen.rng, BROWN), pen.rng.uniform(0.40, 0.56)
    pen.disc(size, heart)
    pen.seeds(70, size, 0.035, heart, 1.7)


def _dandelion(pen: _Pen, colour: Colour) -> None:
    if colour[1] < 0.2:  # white: gone to seed
        pen.disc(0.95, colour, alpha=0.15)
        for distance in (1.0, 0.8, 0.55):
            for angle in pen.rng.uniform(0, 2 * np.pi, size=26):
                tip = distance * _direction(angle)
                pen.petal(angle, distance, 0.025, colour, alpha=0.6)
                for turn in (-0.9, -0.4, 0.0, 0.4, 0.9):
                    pen.petal(angle + turn, 0.22, 0.025, colour, at=tip * 0.85, alpha=0.8)
        pen.seeds(24, 0.14, 0.04, BROWN)
    else:
        for length, light in ((1.0, 0.8), (0.85, 0.9), (0.65, 1.0), (0.4, 1.1)):
            pen.ring(int(50 * length) + 8, length, 0.09, colour, light, blunt=0.4, spread=0.12)


def _rose(pen: _Pen, colour: Colour) -> None:
    for radius in (1.0, 0.82, 0.64, 0.46, 0.3):
        pen.ring(5, radius, 1.25 * radius, colour, 0.55 + 0.5 * radius, blunt=0.45, widest=1.7, spread=0.12)
    turn = np.linspace(0, 4 * np.pi, 40)
    for angle, distance in zip(turn, 0.02 * turn, strict=True):
        pen.disc(0.035, colour, 0.5, distance * _direction(angle))


def _tulip(pen: _Pen, colour: Colour) -> None:
    opening = pen.rng.uniform(0.16, 0.36)
    back, sides, front = (1.6, 0.7, 0.75), (1.75, 0.8, 0.9), (1.65, 0.95, 1.05)
    for lean, (length, width, light) in ((0.5, back), (-0.5, back), (1, sides), (-1, sides), (0, front)):
        angle = lean * opening - np.pi / 2
        pen.petal(angle, length, width, colour, light, blunt=0.75, widest=0.8, at=(0, 0.85))


FLOWERS: dict[str, Callable[[_Pen, Colour], None]] = {
    "daisy": _daisy,
    "dandelion": _dandelion,
    "rose": _rose,
    "sunflower": _sunflower,
    "tulip": _tulip,
}
PETAL_COLOURS: dict[str, tuple[Colour, ...]] = {  # a colour that is listed several times is drawn more often
    "daisy": (WHITE,) * 7 + (CREAM, PINK),
    "dandelion": (YELLOW,) * 11 + (WHITE,),
    "rose": (RED,) * 4 + (CRIMSON,) * 3 + (PINK, CREAM),
    "sunflower": (ORANGE,) * 5 + (YELLOW,),
    "tulip": (PURPLE,) * 5 + (PINK, RED),
}


def _plant(rng: np.random.Generator, image: Image.Image, name: str, radius: float, petal_colour: Colour) -> None:
    """Draw one flower on its stem somewhere in the picture."""
    centre = rng.uniform(0.3, 0.7, size=2) * image.size
    upright = name == "tulip"  # the only one seen from the side
    turn, tilt = rng.normal(0, 0.25), rng.uniform(0.7, 1.0)
    stem = _Pen(rng, image, centre, radius, turn)
    stem.petal(np.pi / 2, 8, 0.16, LEAF, 0.8, blunt=0.2)
    for side in (-1, 1):
        length, start = rng.uniform(0.8, 1.8), rng.uniform(1.0, 2.0)
        stem.petal(np.pi / 2 - side * rng.uniform(1.2, 2.6), length, 0.4, LEAF, rng.uniform(0.6, 1.0), at=(0, start))
    FLOWERS[name](_Pen(rng, image, centre, radius, turn, 1.0 if upright else tilt), _vary(rng, petal_colour))


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A meadow, earth or sky out of focus: a gradient, blurred spots, grass."""
    top, bottom = (_pick(rng, (LEAF, MOSS, BROWN, STRAW, SKY)) for _ in range(2))
    ends = np.array([[_rgba(top)[:3]], [_rgba(bottom)[:3]]], dtype=np.uint8)
    image = Image.fromarray(ends).resize((width, height), Image.Resampling.BICUBIC)
    for _ in range(rng.integers(4, 16)):  # some have the colours of petals, as decoys
        spot = _Pen(rng, image, rng.uniform(0, 1, size=2) * image.size, rng.uniform(0.03, 0.16) * height)
        spot.disc(1.0, _pick(rng, (LEAF, MOSS, STRAW, WHITE, YELLOW, PINK, RED, BROWN)), alpha=0.3)
    _grass(rng, image, rng.integers(0, 40), nearness=1.0)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 7)))


def _grass(rng: np.random.Generator, image: Image.Image, count: int, nearness: float) -> None:
    for _ in range(count):
        root = rng.uniform(0, 1) * image.width, image.height * 1.05
        blade = _Pen(rng, image, root, nearness * rng.uniform(0.2, 0.5) * image.height)
        colour = _pick(rng, (LEAF, LEAF, MOSS, STRAW))
        blade.petal(rng.normal(-np.pi / 2, 0.35), 1.0, 0.09, colour, rng.uniform(0.6, 1.2), widest=0.6)


def _photograph(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Add light from one side, a colour cast, some blur and sensor noise."""
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))
    pixels = np.asarray(image, dtype=np.float32) / 255
    down, across = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    direction = rng.uniform(0, 2 * np.pi)
    light = 1 + 0.2 * (np.cos(direction) * across + np.sin(direction) * down)
    pixels = (pixels * light[..., None] * rng.normal(1, 0.05, size=3)) ** rng.uniform(0.8, 1.25)
    pixels = pixels + rng.normal(0, rng.uniform(0.01, 0.05), size=pixels.shape)
    return Image.fromarray((255 * np.clip(pixels, 0, 1)).astype(np.uint8))


def _direction(angle):
    return np.array([np.cos(angle), np.sin(angle)])


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return _vary(rng, colours[rng.integers(len(colours))])


def _vary(rng: np.random.Generator, colour: Colour) -> Colour:
    hue, saturation, value = np.array(colour) + rng.normal(0, (0.012, 0.05, 0.04))
    return hue % 1, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0, 1))


def _rgba(colour: Colour, light: float = 1.0, alpha: float = 1.0) -> tuple[int, ...]:
    hue, saturation, value = colour
    channels = (*colorsys.hsv_to_rgb(hue, saturation, min(1.0, value * light)), alpha)
    return tuple(round(255 * channel) for channel in channels)
