"""Pictures of things that have no name: several copies each of one to three kinds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from itertools import count

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.config import ShapesConfig
from trex2_lightning.data.shapes.drawing import COLOURS, Instance
from trex2_lightning.data.shapes.layout import (
    MANY_SHAPES,
    NAMELESS,
    PRESETS,
    dealing_rng,
    find_room,
    random_instance,
)
from trex2_lightning.data.shapes.likeness import Gallery
from trex2_lightning.data.shapes.outlines import OUTLINES
from trex2_lightning.data.shapes.primitives import Outline
from trex2_lightning.data.shapes.procedural import procedural_outline, random_star

STAR_IMAGES = 3000  # each of which has stars of its own
KIND_IMAGES = 5000  # of two kinds each in the mean: enough to show 10,000
NAMELESS_CATEGORIES = (1, 3)  # per image
NAMELESS_COPIES = (2, 5)  # of each
NAMELESS_SIZES = (0.15, 0.3)  # as those of things with a name; all of them have to find room
# A kind of outline is no rare or novel shape in disguise: their likeness must be below 0.8 however it is measured.
MAX_LIKENESS = 0.75


def nameless_split(config: ShapesConfig) -> str:
    """The name of the folder and of the COCO file of a data set's nameless images."""
    return f"{NAMELESS}-{config.nameless_kinds}" if config.nameless_kinds else NAMELESS


def plan_nameless(config: ShapesConfig) -> list[NDArray[np.int64]]:
    """Which kinds are in each image, all equally often; none are planned for images of stars."""
    if not config.nameless_kinds:
        return [np.zeros(0, np.int64)] * STAR_IMAGES
    rng = dealing_rng(config, NAMELESS)
    stops = np.cumsum(rng.integers(*NAMELESS_CATEGORIES, KIND_IMAGES, endpoint=True))
    rounds = range(-(-int(stops[-1]) // config.nameless_kinds))
    row = np.concatenate([rng.permutation(config.nameless_kinds) for _ in rounds])
    return [np.unique(kinds) for kinds in np.split(row[: stops[-1]], stops[:-1])]  # a round may begin as one ended


def place_nameless(preset: str, rng: np.random.Generator, kinds: Sequence[Outline] = ()) -> list[Instance]:
    """Some copies each of all `kinds`, or else of a few random stars; `category` counts within the image."""
    side, max_iou = PRESETS[preset].side, PRESETS[preset].max_iou
    while True:
        placed: list[Instance] = []
        num_kinds = len(kinds) or rng.integers(*NAMELESS_CATEGORIES, endpoint=True)
        copies = rng.integers(*NAMELESS_COPIES, num_kinds, endpoint=True)
        for index, number in enumerate(copies.tolist()):
            outline = kinds[index] if kinds else random_star(rng)
            colour = str(rng.choice(list(COLOURS)))
            for _ in range(number):
                find_room(placed, max_iou, partial(random_instance, index, colour, outline, NAMELESS_SIZES, side, rng))
        if len(placed) == copies.sum():
            return placed


@cache
def kind(seed: int, number: int) -> Outline:
    """The outline of a kind; what is too like a rare or novel shape is drawn anew."""
    for attempt in count():
        outline = procedural_outline(number, np.random.default_rng([seed, number, attempt]))
        if _rare_and_novel().likeness(outline) < MAX_LIKENESS:
            return outline
    raise AssertionError


@cache
def _rare_and_novel() -> Gallery:
    """Of both versions: the second has the shapes of the first and more."""
    return Gallery.of([OUTLINES[name] for name in (*MANY_SHAPES.rare, *MANY_SHAPES.novel)])
