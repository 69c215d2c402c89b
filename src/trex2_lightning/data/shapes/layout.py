"""What is in every image of the data set `shapes`: categories, how often they come, poses and places; no drawing.

An image depends on preset, seed, split and index only, so a smaller training split is the beginning of a larger one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.config import ShapesConfig
from trex2_lightning.data.shapes.drawing import COLOURS, Instance, pose
from trex2_lightning.data.shapes.outlines import OUTLINES
from trex2_lightning.data.shapes.primitives import Outline

SPLITS = ("train", "val", "test", "reference")
NAMELESS = "nameless"  # a further split, of things that have no name and are in one image alone
RELATIONS = {"relations": 300, "relations_train": 1500}  # further splits, whose categories are phrases; their images
GROUPS = ("frequent", "common", "rare", "composed", "novel")

TAIL_BLOCK = 6000  # training images over which the long tail is dealt out
RARE_INSTANCES = (4, 14)  # per block
MAX_OBJECTS = 8
MAX_COPIES = 3  # of a category in a row: without them a visual prompt finds only itself
SIZES = (0.15, 0.44)  # long side of a box as a share of the image's, log-uniform
ASPECT = (0.85, 1.15)
MAX_ANGLE = 0.35  # radians
MAX_TRIES = 100  # to find room for an object before the image is begun anew


class Tail(NamedTuple):
    """The shapes whose words occur nowhere else."""

    rare: tuple[str, ...]
    novel: tuple[str, ...]
    colours: tuple[int, ...]  # of each shape: steps from the colour of its own


@dataclass(frozen=True)
class Preset:
    """What tells one preset from another."""

    side: int  # pixels
    max_iou: float  # of two boxes of an image
    fills: tuple[str, ...]
    shapes: tuple[str, ...]  # of frequent, common and composed categories
    tail: Tail  # of version 1
    num_images: dict[str, int]  # per split other than train


PRESETS = {
    "easy": Preset(
        side=128,
        max_iou=0.08,
        fills=("solid",),
        shapes=("circle", "square", "triangle", "star", "cross", "heart", "ring", "moon"),
        tail=Tail(
            rare=("arrow", "crown", "hourglass", "mushroom", "flag", "stairs"),
            novel=("bolt", "fish", "key", "bone", "comb", "snake"),
            colours=(0, 3, 6),
        ),
        num_images={"val": 250, "test": 500, "reference": 400},
    ),
    "hard": Preset(
        side=192,
        max_iou=0.2,
        fills=("solid", "stripes", "dots", "outline"),
        shapes=(
            *("circle", "square", "triangle", "star", "cross", "heart", "ring", "moon"),
            *("flower", "drop", "horseshoe", "house"),
        ),
        tail=Tail(
            rare=("arrow", "crown", "hourglass", "mushroom", "flag", "stairs", "boat", "cup"),
            novel=("bolt", "fish", "key", "bone", "comb", "snake", "bottle", "ladder"),
            colours=(0, 3, 6),
        ),
        num_images={"val": 350, "test": 700, "reference": 600},
    ),
}

# Of version 2, in both presets. A shape is learned or not, in all its colours at once: AP over few shapes varies much.
MANY_SHAPES = Tail(
    rare=(
        *PRESETS["hard"].tail.rare,
        *("tree", "scissors", "hammer", "anchor", "bell", "lamp", "cactus", "chair", "plane", "shirt"),
    ),
    novel=(
        *PRESETS["hard"].tail.novel,
        *("car", "boot", "rabbit", "cloud", "fork", "glasses", "dog", "butterfly", "wrench", "duck"),
    ),
    colours=(0,),
)


class Category(NamedTuple):
    """A colour and a shape."""

    name: str
    colour: str
    shape: str
    group: str


def categories(preset: str, version: int = 1) -> list[Category]:
    """All categories of a preset, in the order of the COCO file, where their ids count from 1."""
    tail = PRESETS[preset].tail if version == 1 else MANY_SHAPES
    colours = list(COLOURS)
    found = []
    for column, shape in enumerate(PRESETS[preset].shapes):
        for row, colour in enumerate(colours):
            diagonal = (row - column) % len(colours)  # spreads the exceptions evenly over colours and shapes
            if diagonal == 0:
                group = "composed"
            elif diagonal == 3 or (diagonal == 6 and column % 3 == 0):
                group = "common"
            else:
                group = "frequent"
            found.append(Category(f"{colour} {shape}", colour, shape, group))
    for group, shapes in (("rare", tail.rare), ("novel", tail.novel)):
        for column, shape in enumerate(shapes):
            for colour in (colours[(column + step) % len(colours)] for step in tail.colours):
                found.append(Category(f"{colour} {shape}", colour, shape, group))
    return sorted(found, key=lambda category: GROUPS.index(category.group))


def layout(config: ShapesConfig, split: str) -> Iterator[list[Instance]]:
    """The instances of every image of a split, as they are drawn."""
    for index, planned in enumerate(plan(config, split)):
        yield place(config, planned, image_rng(config, split, index))


def plan(config: ShapesConfig, split: str) -> list[NDArray[np.int64]]:
    """Which categories (indices into `categories`, repeated for copies) are in each image of a split."""
    if split != "train":
        return _deal(config, split, PRESETS[config.preset].num_images[split], block=0)
    blocks = range(-(-config.num_train // TAIL_BLOCK))
    return [image for block in blocks for image in _deal(config, split, TAIL_BLOCK, block)][: config.num_train]


def place(config: ShapesConfig, planned: NDArray[np.int64], rng: np.random.Generator) -> list[Instance]:
    """Give every planned category a pose and a place; begins anew where the first ones leave no room for the last."""
    names, preset = categories(config.preset, config.version), PRESETS[config.preset]
    while True:
        placed: list[Instance] = []
        for index in planned.tolist():
            colour, shape = names[index].colour, OUTLINES[names[index].shape]
            find_room(placed, preset.max_iou, partial(random_instance, index, colour, shape, SIZES, preset.side, rng))
        if len(placed) == len(planned):
            return placed


def find_room(placed: list[Instance], max_iou: float, drop: Callable[[], Instance]) -> None:
    """Add an instance that `drop` puts down where there is room, if it does so within `MAX_TRIES`."""
    for _ in range(MAX_TRIES):
        candidate = drop()
        if all(_iou(candidate.box, other.box) < max_iou for other in placed):
            placed.append(candidate)
            return


def random_instance(
    index: int, colour: str, shape: Outline, sizes: tuple[float, float], side: int, rng: np.random.Generator
) -> Instance:
    """A shape in a random pose at a random place."""
    size = side * np.exp(rng.uniform(*np.log(sizes)))
    outline = pose(shape, size, rng.uniform(*ASPECT), rng.uniform(-MAX_ANGLE, MAX_ANGLE))
    width, height = outline.box()[1].tolist()
    x, y = rng.uniform(0, side - width), rng.uniform(0, side - height)
    moved = outline.transform(np.eye(2), np.array([x, y]))
    return Instance(index, colour, moved, (x, y, x + width, y + height))


def image_rng(config: ShapesConfig, split: str, index: int) -> np.random.Generator:
    """The random numbers of one image: `place` draws first, then the painter."""
    return _rng(config, split, 1, index)


def dealing_rng(config: ShapesConfig, split: str, block: int = 0) -> np.random.Generator:
    """The random numbers by which a block of a split's images is given what it shows."""
    return _rng(config, split, 0, block)


def _deal(config: ShapesConfig, split: str, num_images: int, block: int) -> list[NDArray[np.int64]]:
    """A row of runs (copies of one category), each category evenly spread over it, cut into images."""
    rng = dealing_rng(config, split, block)
    sizes = rng.integers(1, MAX_OBJECTS + 1, num_images)
    # A generic visual prompt needs exemplars from many images: the reference split has no copies.
    max_copies = 1 if split == "reference" else MAX_COPIES
    runs, keys = [], []
    for category, count in enumerate(_instance_counts(config, split, int(sizes.sum()), rng)):
        copies = _runs(count, max_copies, rng)
        runs += [np.full(number, category) for number in copies]
        keys.append((np.arange(len(copies)) + rng.random(len(copies))) / max(len(copies), 1))
    row = np.concatenate([runs[i] for i in np.argsort(np.concatenate(keys))])
    return np.split(row, np.cumsum(sizes)[:-1])


def _instance_counts(config: ShapesConfig, split: str, total: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Instances per category, `total` in all: a long tail in training, equal numbers elsewhere."""
    groups = np.array([category.group for category in categories(config.preset, config.version)])
    if split == "train":
        weights = np.select([groups == "frequent", groups == "common"], [10, 1], 0)
        rare = np.where(groups == "rare", rng.integers(RARE_INSTANCES[0], RARE_INSTANCES[1] + 1, len(groups)), 0)
    else:
        weights, rare = np.ones(len(groups), int), np.zeros(len(groups), int)
    shares = np.cumsum(weights) * (total - rare.sum()) // weights.sum()
    return np.diff(shares, prepend=0) + rare


def _runs(count: int, max_copies: int, rng: np.random.Generator) -> list[int]:
    """Lengths from 1 to `max_copies` that add up to `count`."""
    lengths: list[int] = []
    while count:
        lengths.append(min(int(rng.integers(1, max_copies + 1)), count))
        count -= lengths[-1]
    return lengths


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def _rng(config: ShapesConfig, split: str, stream: int, index: int) -> np.random.Generator:
    preset, number = list(PRESETS).index(config.preset), (*SPLITS, NAMELESS, *RELATIONS).index(split)
    return np.random.default_rng([config.seed, preset, number, stream, index])
