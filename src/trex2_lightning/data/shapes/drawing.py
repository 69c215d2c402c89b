"""Coloured shapes on a cluttered background: the pictures of the synthetic data set `shapes`.

A shape is a set of polygons in any unit, x to the right and y downwards; `pose` gives it its size in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import minimum_filter

SUPERSAMPLING = 2
COLOUR_JITTER = 14.0  # standard deviation per channel
PIXEL_NOISE = 10.0  # standard deviation per channel and pixel
MAX_LINES = 4  # of clutter
COLOURS = {
    "red": (215, 35, 35),
    "orange": (240, 125, 20),
    "yellow": (245, 238, 50),
    "green": (35, 160, 60),
    "blue": (40, 75, 225),
    "purple": (150, 40, 180),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}

Points = NDArray[np.float64]  # (n, 2) corners x, y of a polygon


class Outline(NamedTuple):
    """The union of the `solid` polygons less the `holes`, which lie inside it."""

    solid: tuple[Points, ...]
    holes: tuple[Points, ...] = ()

    def box(self) -> Points:
        """(2, 2) upper left and lower right corner of the tight box."""
        points = np.concatenate(self.solid)
        return np.stack([points.min(0), points.max(0)])

    def transform(self, matrix: Points, offset: Points) -> Outline:
        """Multiply every point by `matrix` (2, 2), then add `offset` (2,)."""

        def moved(polygons: tuple[Points, ...]) -> tuple[Points, ...]:
            return tuple(points @ matrix.T + offset for points in polygons)

        return Outline(moved(self.solid), moved(self.holes))


class Instance(NamedTuple):
    """One object of an image."""

    category: int
    colour: str
    outline: Outline  # pixels
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, tight around the outline, hidden parts included


def pose(outline: Outline, size: float, aspect: float, angle: float) -> Outline:
    """An outline with its width stretched by `aspect`, turned by `angle` (radians), and scaled so that the long side of
    its box is `size` pixels; the box's upper left corner is the origin."""
    cos, sin = np.cos(angle), np.sin(angle)
    turned = outline.transform(np.array([[aspect * cos, -sin], [aspect * sin, cos]]), np.zeros(2))
    low, high = turned.box()
    scale = size / (high - low).max()
    return turned.transform(np.eye(2) * scale, -low * scale)


def draw(instances: list[Instance], side: int, fills: tuple[str, ...], rng: np.random.Generator) -> Image.Image:
    """A square picture of `side` pixels: gradient, clutter lines, the instances, then noise over everything.

    Large instances are painted first, so that an overlap hides the smaller share of the two.
    """
    canvas = _background(side, rng)
    for instance in sorted(instances, key=_area, reverse=True):
        colour = COLOURS[instance.colour] + rng.normal(0, COLOUR_JITTER, 3)
        paint(canvas, instance.outline, colour, fills[rng.integers(len(fills))], rng)
    noisy = np.asarray(canvas) + PIXEL_NOISE * rng.standard_normal((side, side, 3), dtype=np.float32)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def paint(
    canvas: Image.Image, outline: Outline, colour: NDArray[np.float64], fill: str, rng: np.random.Generator
) -> None:
    """Paint an outline in an RGB colour with a fill: solid, or stripes, dots or nothing within a solid edge."""
    low, high = np.floor(outline.box()[0]).astype(int) - 1, np.ceil(outline.box()[1]).astype(int) + 1
    mask = Image.new("L", tuple((high - low) * SUPERSAMPLING))
    pen = ImageDraw.Draw(mask)
    # Pillow's integer coordinates are the centres of pixels.
    local = outline.transform(np.eye(2) * SUPERSAMPLING, -low * SUPERSAMPLING - 0.5)
    for polygons, value in ((local.solid, 255), (local.holes, 0)):
        for points in polygons:
            pen.polygon([tuple(point) for point in points.tolist()], fill=value)
    if fill != "solid":
        mask = Image.fromarray(_textured(np.asarray(mask), fill, rng))
    red, green, blue = colour.round().clip(0, 255).astype(int).tolist()
    canvas.paste((red, green, blue), tuple(low.tolist()), mask.reduce(SUPERSAMPLING))


def _area(instance: Instance) -> float:
    x0, y0, x1, y1 = instance.box
    return (x1 - x0) * (y1 - y0)


def _background(side: int, rng: np.random.Generator) -> Image.Image:
    start, stop = rng.uniform(85, 170, (2, 1)) + rng.uniform(-20, 20, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    ramp = (1 + (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2))[..., None] / 2
    canvas = Image.fromarray((start + ramp * (stop - start)).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(MAX_LINES + 1)):
        tone = tuple((rng.uniform(50, 205) + rng.uniform(-20, 20, 3)).astype(int).tolist())
        pen.line(rng.uniform(0, side, 4).tolist(), fill=tone, width=int(rng.integers(1, 3)))
    return canvas


def _textured(mask: NDArray[np.uint8], fill: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The mask with its inside, behind an edge of 2 pixels of the picture, replaced by a pattern."""
    inside = minimum_filter(mask, 4 * SUPERSAMPLING + 1, mode="constant") > 0
    y, x = np.indices(mask.shape) / SUPERSAMPLING
    period, angle = rng.uniform(5, 8), rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if fill == "stripes":
        inked = u % period < period / 2
    elif fill == "dots":
        inked = np.hypot(u % period - period / 2, v % period - period / 2) < period / 3
    else:
        inked = np.zeros(mask.shape, bool)
    return np.where(inside & ~inked, 0, mask).astype(np.uint8)


def _polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, float)


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    return _polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _arc(start: float, stop: float, radius: float = 1, x: float = 0, y: float = 0, flat: float = 1) -> Points:
    """Points from angle `start` to `stop` in degrees, clockwise from the right; the height is `flat` x the width."""
    angles = np.radians(np.linspace(start, stop, 3 + int(abs(stop - start) / 10)))
    return np.stack([x + radius * np.cos(angles), y + flat * radius * np.sin(angles)], -1)


def _disc(radius: float = 1, x: float = 0, y: float = 0, flat: float = 1) -> Points:
    return _arc(0, 360, radius, x, y, flat)


def _star(tips: int, inner: float) -> Points:
    angles = np.arange(2 * tips) * np.pi / tips - np.pi / 2
    radii = np.where(np.arange(2 * tips) % 2, inner, 1)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], -1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 40)
    height = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -height], -1)


def _flower() -> Points:
    t = np.linspace(0, 2 * np.pi, 80)
    radii = 0.68 + 0.32 * np.cos(5 * t)
    return np.stack([radii * np.sin(t), -radii * np.cos(t)], -1)


def _snake() -> Points:
    x = np.linspace(-1, 1, 24)
    y = 0.4 * np.sin(1.5 * np.pi * x)
    return np.concatenate([np.stack([x, y - 0.25], -1), np.stack([x, y + 0.25], -1)[::-1]])


OUTLINES = {
    "circle": Outline((_disc(),)),
    "square": Outline((_rectangle(-1, -1, 1, 1),)),
    "triangle": Outline((_polygon((0, -1), (1, 0.8), (-1, 0.8)),)),
    "star": Outline((_star(5, 0.42),)),
    "cross": Outline((_rectangle(-1, -0.33, 1, 0.33), _rectangle(-0.33, -1, 0.33, 1))),
    "heart": Outline((_heart(),)),
    "ring": Outline((_disc(),), (_disc(0.52),)),
    "moon": Outline((np.concatenate([_arc(52, 308), _arc(278, 82, 0.8, 0.5)]),)),
    "flower": Outline((_flower(),), (_disc(0.2),)),
    "drop": Outline((np.concatenate([_polygon((0, -1)), _arc(-25, 205, 0.65, 0, 0.35)]),)),
    "horseshoe": Outline((np.concatenate([_arc(130, 410), _arc(410, 130, 0.52)]),)),
    "house": Outline(
        (_polygon((-1, 0), (0, -1), (1, 0)), _rectangle(-0.7, -0.05, 0.7, 1), _rectangle(0.45, -1, 0.75, -0.2)),
        (_rectangle(-0.22, 0.3, 0.22, 1),),
    ),
    "arrow": Outline((_polygon((-1, -0.28), (0.1, -0.28), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.28), (-1, 0.28)),)),
    "crown": Outline((_polygon((-1, 0.7), (-1, -0.6), (-0.5, 0.1), (0, -0.8), (0.5, 0.1), (1, -0.6), (1, 0.7)),)),
    "hourglass": Outline((_polygon((-0.8, -1), (0.8, -1), (0.12, 0), (0.8, 1), (-0.8, 1), (-0.12, 0)),)),
    "mushroom": Outline((_arc(180, 360), _rectangle(-0.3, -0.05, 0.3, 0.9))),
    "flag": Outline(
        (_rectangle(-0.9, -1, -0.6, 1), _polygon((-0.6, -1), (0.9, -1), (0.4, -0.45), (0.9, 0.1), (-0.6, 0.1)))
    ),
    "stairs": Outline(
        (_rectangle(-1, 0.4, 1, 1), _rectangle(-0.33, -0.3, 1, 0.5), _rectangle(0.33, -1, 1, 0.5)),
    ),
    "boat": Outline(
        (
            _polygon((-1, 0.3), (1, 0.3), (0.6, 0.9), (-0.6, 0.9)),
            _rectangle(-0.2, -1, 0, 0.4),
            _polygon((-0.05, -0.95), (0.8, 0.1), (-0.05, 0.1)),
        )
    ),
    "cup": Outline(
        (_polygon((-1, -0.8), (0.4, -0.8), (0.25, 0.8), (-0.85, 0.8)), _disc(0.5, 0.5, -0.1)), (_disc(0.24, 0.6, -0.1),)
    ),
    "bolt": Outline(
        (_polygon((0.05, -1), (-0.6, 0.15), (-0.1, 0.15), (-0.3, 1), (0.6, -0.25), (0.1, -0.25), (0.5, -1)),)
    ),
    "fish": Outline((_disc(0.75, -0.25, 0, 0.62), _polygon((0.2, 0), (1, -0.6), (0.8, 0), (1, 0.6)))),
    "key": Outline(
        (
            _disc(0.5, -0.5),
            _rectangle(-0.1, -0.14, 1, 0.14),
            _rectangle(0.35, 0, 0.55, 0.5),
            _rectangle(0.8, 0, 1, 0.5),
        ),
        (_disc(0.24, -0.5),),
    ),
    "bone": Outline(
        (_rectangle(-0.65, -0.17, 0.65, 0.17), *(_disc(0.3, x, y) for x in (-0.7, 0.7) for y in (-0.26, 0.26)))
    ),
    "comb": Outline(
        (_rectangle(-1, -0.75, 1, -0.2), *(_rectangle(x, -0.3, x + 0.29, 0.75) for x in (-1, -0.43, 0.14, 0.71)))
    ),
    "snake": Outline((_snake(),)),
    "bottle": Outline(
        (_polygon((-0.2, -1), (0.2, -1), (0.2, -0.45), (0.5, -0.1), (0.5, 1), (-0.5, 1), (-0.5, -0.1), (-0.2, -0.45)),)
    ),
    "ladder": Outline(
        (_rectangle(-0.6, -1, 0.6, 1),), tuple(_rectangle(-0.35, y, 0.35, y + 0.33) for y in (-0.87, -0.4, 0.07, 0.54))
    ),
}
