"""The pictures: boxes fit what is seen, and shapes, colours and fills are told apart."""

from itertools import combinations
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from trex2_lightning.config import ShapesConfig
from trex2_lightning.data.shapes import layout
from trex2_lightning.data.shapes.drawing import COLOURS, Instance, draw, paint, pose
from trex2_lightning.data.shapes.layout import MANY_SHAPES, PRESETS, SPLITS, categories
from trex2_lightning.data.shapes.outlines import OUTLINES

WHITE = np.full(3, 255.0)


@pytest.mark.parametrize(("preset", "version"), [("easy", 1), ("hard", 1), ("easy", 2)])
def test_boxes_are_tight_around_the_pixels(preset: str, version: Literal[1, 2]) -> None:
    side, fills = PRESETS[preset].side, PRESETS[preset].fills
    drawn = set()
    for number, instances in enumerate(layout.layout(ShapesConfig(preset, version=version), "val")):
        for instance in instances[:1]:
            canvas = Image.new("RGB", (side, side))
            rng = np.random.default_rng(number)
            paint(canvas, instance.outline, WHITE, fills[number % len(fills)], rng)
            inked = Image.fromarray(np.where(np.asarray(canvas)[..., 0] > 40, 255, 0).astype(np.uint8))
            assert np.abs(np.subtract(inked.getbbox(), instance.box)).max() <= 1.5
            drawn.add(categories(preset, version)[instance.category].shape)
    assert len(drawn) > (15 if version == 1 else 35)


def test_occlusion_leaves_much_of_every_object_in_sight() -> None:
    shares = []
    for instances in layout.layout(ShapesConfig("hard"), "val"):
        canvas = Image.new("RGB", (192, 192))
        for number, instance in enumerate(sorted(instances, key=area, reverse=True), start=1):  # as `draw` paints
            whole = Image.new("RGB", canvas.size)
            for picture in (canvas, whole):
                paint(picture, instance.outline, np.full(3, 30.0 * number), "solid", np.random.default_rng(0))
            shares.append([30 * number, (np.asarray(whole) == 30 * number).sum(), canvas])
    visible = [(np.asarray(canvas) == value).sum() / whole for value, whole, canvas in shares]
    assert 0.4 < min(visible) < 0.8, "there is occlusion, but nothing is hidden"


def test_shapes_are_told_apart_when_small_and_turned() -> None:
    shapes_used = (*PRESETS["hard"].shapes, *MANY_SHAPES.rare, *MANY_SHAPES.novel)
    assert set(shapes_used) == set(OUTLINES), "of both presets and versions"
    masks = {shape: [pixels(shape, angle) for angle in (-0.35, 0.0, 0.35)] for shape in shapes_used}
    for a, b in combinations(shapes_used, 2):
        overlap = max(np.minimum(x, y).sum() / np.maximum(x, y).sum() for x in masks[a] for y in masks[b])
        assert overlap < 0.82, (a, b)


def test_colours_are_told_apart_in_spite_of_their_jitter() -> None:
    for (a, rgb), (b, other) in combinations(COLOURS.items(), 2):
        assert np.linalg.norm(np.subtract(rgb, other)) > 6 * 14, (a, b)


def test_fills_differ_within_the_same_edge() -> None:
    drawn = {fill: pixels("square", 0.0, size=40, fill=fill) for fill in PRESETS["hard"].fills}
    inside = {fill: picture[5:35, 5:35].mean() for fill, picture in drawn.items()}
    assert inside["solid"] == 1
    assert inside["outline"] == 0
    assert 0.3 < inside["stripes"] < 0.7
    assert 0.2 < inside["dots"] < 0.6
    for picture in drawn.values():
        assert picture[20, 0] == 1, "every fill has a solid edge"


def test_a_picture_shows_each_instance_in_its_colour() -> None:
    for instances in [next(layout.layout(ShapesConfig(), split)) for split in SPLITS]:
        instances = [i for i in instances if categories("easy")[i.category].shape in ("circle", "square", "heart")]
        picture = np.asarray(draw(instances, 128, ("solid",), np.random.default_rng(0)), float)
        for instance in instances:
            x0, y0, x1, y1 = instance.box
            centre = picture[int((y0 + y1) / 2) - 2 :, int((x0 + x1) / 2) - 2 :][:5, :5].mean((0, 1))
            nearest = min(COLOURS, key=lambda name: np.linalg.norm(centre - COLOURS[name]))
            assert nearest == instance.colour


def area(instance: Instance) -> float:
    x0, y0, x1, y1 = instance.box
    return (x1 - x0) * (y1 - y0)


def pixels(shape: str, angle: float, size: int = 20, fill: str = "solid") -> np.ndarray:
    """The shape in white on black, in the upper left corner."""
    canvas = Image.new("RGB", (size + 2, size + 2))
    paint(canvas, pose(OUTLINES[shape], size, 1.0, angle), WHITE, fill, np.random.default_rng(0))
    return np.asarray(canvas)[..., 0] / 255
