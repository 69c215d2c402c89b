"""Exemplars as a person marks them, in pixels, to those that the detector reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from trex2_lightning.errors import InputError
from trex2_lightning.ops.boxes import xyxy_to_cxcywh

Exemplars = Sequence[Sequence[float]]  # boxes x1, y1, x2, y2, or points x, y, in pixels of the upright image


def check_kinds(images: Iterable[Mapping[str, Exemplars]]) -> None:
    """A category has boxes or points, in all images together: training never mixes them (T-Rex issue 85).

    Raises:
        InputError: it has both, an exemplar is neither, or a category has no exemplar.
    """
    kinds: dict[str, int] = {}
    for exemplars in images:
        for name, values in exemplars.items():
            if not len(values):
                raise InputError(f"'{name}' has no exemplar: give it a box or a point, or leave it out")
            for value in values:
                if len(value) not in (2, 4):
                    raise InputError(
                        f"the exemplar {_written(value)} of '{name}' has {len(value)} numbers: write a box as "
                        "x1,y1,x2,y2 and a point as x,y, in pixels"
                    )
                if kinds.setdefault(name, len(value)) != len(value):
                    raise InputError(f"'{name}' has boxes and points: give boxes alone, or points alone")


def to_boxes(name: str, exemplars: Exemplars, size: tuple[int, int]) -> Tensor:
    """Boxes or points of the category `name`, to (M, 4) cxcywh in [0, 1]; a point becomes a box without area.

    Args:
        name: for messages.
        exemplars: M of one kind.
        size: height and width of the image.

    Raises:
        InputError: one of them does not lie in the image, or is a box without area.
    """
    height, width = size
    corners = [(*value, *value)[:4] for value in exemplars]
    for value, (left, top, right, bottom) in zip(exemplars, corners, strict=True):
        is_box = len(value) == 4
        inside = 0 <= left <= right <= width and 0 <= top <= bottom <= height
        if not inside or (is_box and (left == right or top == bottom)):
            wanted = "x1,y1,x2,y2 with x1 < x2 and y1 < y2" if is_box else "x,y"
            raise InputError(
                f"{_written(value)} of '{name}' is no {'box' if is_box else 'point'} in its image of "
                f"{width} x {height} pixels: write {wanted}, from 0,0 to {width},{height}"
            )
    return xyxy_to_cxcywh(torch.tensor(corners, dtype=torch.float32) / torch.tensor([width, height, width, height]))


def _written(exemplar: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in exemplar)
