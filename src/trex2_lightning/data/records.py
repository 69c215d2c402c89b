"""The data that training and evaluation see: the images of one split, each with its boxes and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor


class ImageRecord(NamedTuple):
    """One image and its n annotated boxes."""

    id: int
    path: Path
    width: int  # pixels
    height: int
    boxes: Tensor  # (n, 4) float32, xyxy in pixels, within the image
    labels: Tensor  # (n,) int64, index into `Records.names`
    crowd: Tensor  # (n,) bool, the box surrounds an uncounted crowd: neither target nor false positive
    area: Tensor  # (n,) float32, the file's `area` (of the object's mask), else the box's, square pixels
    # (k,) int64, labels whose presence and all of whose boxes the data set knows here; None: all. One that is judged
    # and has no box is absent; one with a box that is not judged may have more of them.
    judged: Tensor | None = None
    exemplars: Tensor | None = None  # (m, 4) float32, xyxy in pixels, what counting benchmarks show as prompts
    num_objects: int | None = None  # where a counting benchmark says it


class Records(NamedTuple):
    """One split of a data set."""

    images: Sequence[ImageRecord]  # in the file's order
    names: tuple[str, ...]  # category names in the file's order
    category_ids: tuple[int, ...]  # the file's ids of `names`
    groups: tuple[str, ...]  # the categories' `group`, "" where they have none
    annotations: Path  # the file
    lost: Mapping[str, tuple[int, str]] = MappingProxyType({})  # what was left out or mended: number and first place
