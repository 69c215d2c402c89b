"""Coloured shapes on a cluttered background: the pictures of the synthetic data set `shapes`.

An outline has no unit; `pose` gives it its size in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import minimum_filter

from trex2_lightning.data.shapes.primitives import Outline

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
    local = outline.transform(np.eye(2) * SUPERSAMPLING, -low * SUPERSAMPLING - 0.5)
    width, height = ((high - low) * SUPERSAMPLING).tolist()
    mask = filled(local, (width, height))
    if fill != "solid":
        mask = Image.fromarray(_textured(np.asarray(mask), fill, rng))
    red, green, blue = colour.round().clip(0, 255).astype(int).tolist()
    canvas.paste((red, green, blue), tuple(low.tolist()), mask.reduce(SUPERSAMPLING))


def filled(outline: Outline, size: tuple[int, int]) -> Image.Image:
    """A mask of `size` (width, height): 255 in the outline, 0 elsewhere; whole numbers are the centres of pixels."""
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    for polygons, value in ((outline.solid, 255), (outline.holes, 0)):
        for points in polygons:
            pen.polygon([tuple(point) for point in points.tolist()], fill=value)
    return mask


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
