"""Exemplars as a person marks them, in pixels, to those that the detector reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from trex2_lightning.errors import InputError
from trex2_lightning.ops.boxes import xyxy_to_cxcywh
from trex2_lightning.structures import Exemplar, ExemplarKind

Marks = Mapping[str, Sequence[Exemplar]]  # what is marked in an image, by the category's name
WRITTEN: dict[ExemplarKind, str] = {"box": "x1,y1,x2,y2 with x1 < x2 and y1 < y2", "point": "x,y"}


def check_kinds(images: Iterable[Marks]) -> None:
    """A category has exemplars of one kind, in all images together: training never mixes them (T-Rex issue 85).

    Raises:
        InputError: it has several, one is no exemplar, or a category has none.
    """
    kinds: dict[str, ExemplarKind] = {}
    for marks in images:
        for name, exemplars in marks.items():
            if not len(exemplars):
                raise InputError(f"'{name}' has no exemplar: give it a box or a point, or leave it out")
            for exemplar in exemplars:
                if not isinstance(exemplar, Exemplar):
                    raise InputError(
                        f"the exemplar {exemplar!r} of '{name}' is neither a box nor a point: write Box(x1, y1, x2, "
                        "y2) or Point(x, y), of trex2_lightning.structures, in pixels"
                    )
                if kinds.setdefault(name, exemplar.kind) != exemplar.kind:
                    raise InputError(f"'{name}' has boxes and points: give boxes alone, or points alone")


def to_boxes(name: str, exemplars: Sequence[Exemplar], size: tuple[int, int]) -> Tensor:
    """The exemplars of the category `name`, to (M, 4) cxcywh in [0, 1]; a point becomes a box without area.

    Args:
        name: for messages.
        exemplars: M of one kind.
        size: height and width of the image.

    Raises:
        InputError: one of them does not lie in the image, or is a box without area.
    """
    height, width = size
    corners = [exemplar.corners for exemplar in exemplars]
    for exemplar, (left, top, right, bottom) in zip(exemplars, corners, strict=True):
        inside = 0 <= left <= right <= width and 0 <= top <= bottom <= height
        if not inside or (exemplar.kind == "box" and (left == right or top == bottom)):
            raise InputError(
                f"{exemplar} of '{name}' is no {exemplar.kind} in its image of {width} x {height} pixels: write "
                f"{WRITTEN[exemplar.kind]}, from 0,0 to {width},{height}"
            )
    return xyxy_to_cxcywh(torch.tensor(corners, dtype=torch.float32) / torch.tensor([width, height, width, height]))
