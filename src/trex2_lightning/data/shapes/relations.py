"""Pictures for phrases such as "the blue star left of the black ring", in which nothing but the relation tells.

Two rows, horizontal or vertical, each a thing between two lookalikes; the four lookalikes of a picture are of one
colour and shape, the two things between them are not. So a quarter is right by chance, a half by the lookalike's place
in its row alone, and a half by its neighbour alone.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from trex2_lightning.data.shapes.drawing import COLOURS, Instance, pose
from trex2_lightning.data.shapes.layout import ASPECT, MAX_ANGLE, PRESETS
from trex2_lightning.data.shapes.outlines import OUTLINES

SIDES = (("left of", "right of"), ("above", "below"))  # of a horizontal row, of a vertical one
NUM_TARGETS, NUM_ANCHORS = 4, 3  # kinds of lookalikes and of things between them
RELATION_SIZES = (0.15, 0.24)  # long side of a box as a share of the image's
SLACK = 0.045  # by which a thing may leave its place in the rows, as a share of the image's side


def phrases(preset: str) -> list[str]:
    """All phrases, in the order of the COCO file, where their ids count from 1."""
    targets, anchors = _kinds(preset)
    return [
        f"the {target} {side} the {anchor}"
        for target, anchor, side in product(targets, anchors, [side for sides in SIDES for side in sides])
    ]


def place_relations(preset: str, rng: np.random.Generator) -> list[Instance]:
    """What an image shows: four lookalikes, whose `category` is a phrase, and two things without one (-1)."""
    targets, anchors = _kinds(preset)
    target, axis = str(rng.choice(targets)), int(rng.integers(2))
    side, known = PRESETS[preset].side, phrases(preset)
    placed = []
    for row, anchor in enumerate(rng.choice(anchors, 2, replace=False).tolist()):
        for column, name in enumerate((target, anchor, target)):
            centre = side * (np.array([(column + 0.5) / 3, (row + 0.5) / 2]) + rng.uniform(-SLACK, SLACK, 2))
            phrase = f"the {target} {SIDES[axis][column // 2]} the {anchor}"
            category = known.index(phrase) if column != 1 else -1
            placed.append(_put(category, name, centre if axis == 0 else centre[::-1], side, rng))
    return placed


def _kinds(preset: str) -> tuple[list[str], list[str]]:
    """Lookalikes and what stands between them: frequent categories, each of a colour and a shape of its own."""
    colours, shapes = list(COLOURS), PRESETS[preset].shapes
    names = [f"{colours[i + 1]} {shapes[i]}" for i in range(NUM_TARGETS + NUM_ANCHORS)]
    return names[:NUM_TARGETS], names[NUM_TARGETS:]


def _put(category: int, name: str, centre: np.ndarray, side: int, rng: np.random.Generator) -> Instance:
    """A thing in a random pose, its box around `centre` (x, y) in pixels."""
    colour, shape = name.split()
    size = side * rng.uniform(*RELATION_SIZES)
    outline = pose(OUTLINES[shape], size, rng.uniform(*ASPECT), rng.uniform(-MAX_ANGLE, MAX_ANGLE))
    extent = outline.box()[1]
    x, y = (centre - extent / 2).tolist()
    width, height = extent.tolist()
    return Instance(category, colour, outline.transform(np.eye(2), np.array([x, y])), (x, y, x + width, y + height))
