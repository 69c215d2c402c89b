"""What images of a set take most memory: the sides that a batch can be padded to, and those with the most boxes.

n images of a set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.config import DataConfig
from trex2_lightning.data.index.reading import Index
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.data.sampling.collate import STRIDE

CROPPED = 2.0  # longest side over shortest that a random crop gives, whatever the image's own are


class Extents(NamedTuple):
    """How large images are and how much is on them."""

    height: NDArray[np.int64]  # (n,) pixels of the file
    width: NDArray[np.int64]  # (n,)
    boxes: NDArray[np.int64]  # (n,) how many, crowds included

    @property
    def portrait(self) -> NDArray[np.bool_]:
        return self.height > self.width


def extents(images: Sequence[ImageRecord]) -> Extents:
    """Of all images; of an index without a record of each."""
    if isinstance(images, Index):
        return Extents(*images.extents())
    rows = [(image.height, image.width, len(image.boxes)) for image in images]
    return Extents(*np.array(rows, np.int64).reshape(-1, 3).T)


def largest_training_padding(found: Extents, config: DataConfig, *, mixed: bool) -> tuple[int, int]:
    """Height and width of the largest batch that training makes of such images.

    Args:
        found: of the set, which has images.
        config: sizes, crop and images per batch.
        mixed: whether landscape and portrait images come in one batch; else it is of those whose padding is larger.
    """
    crop = config.augment.crop > 0
    return _largest(found, max(config.train_sizes or [config.size]), config.max_size, crop, config.batch_size, mixed)


def largest_evaluation_padding(found: Extents, config: DataConfig, batch_size: int) -> tuple[int, int]:
    """The same of evaluation, which takes images as they come."""
    return _largest(found, config.size, config.max_size, False, batch_size, mixed=True)


def most_boxes(found: Extents, count: int, portrait: bool | None = None) -> tuple[int, ...]:
    """Up to `count` images, of one orientation unless it is None, most boxes first."""
    places = np.arange(len(found.boxes)) if portrait is None else np.flatnonzero(found.portrait == portrait)
    order = np.argsort(-found.boxes[places], kind="stable")[:count]
    return tuple(places[order].tolist())


def _largest(found: Extents, size: int, max_size: int, crop: bool, batch_size: int, mixed: bool) -> tuple[int, int]:
    """Of one image the sides belong together; of several the batch has the highest's height and the widest's width."""
    long, short = np.maximum(found.height, found.width), np.minimum(found.height, found.width)
    paddings = []
    for portrait in (False, True):
        chosen = found.portrait == portrait
        if chosen.any():
            low, high = _sides((long / short)[chosen], size, max_size, crop, batch_size == 1)
            paddings.append((high, low) if portrait else (low, high))
    if mixed and batch_size > 1:
        paddings = [(max(height for height, _ in paddings), max(width for _, width in paddings))]
    return max(paddings, key=lambda sides: sides[0] * sides[1])


def _sides(aspects: NDArray[np.float64], size: int, max_size: int, crop: bool, alone: bool) -> tuple[int, int]:
    """Shorter and longer side, padded, of what has these longer sides over shorter ones."""
    if crop:  # anything from square on
        aspects = np.array([1.0, max(CROPPED, float(aspects.max()))])
    if alone:  # fills most where both limits are reached at once
        areas = np.minimum(size, max_size / aspects) * np.minimum(size * aspects, max_size)
        fullest = np.clip(max_size / size, *aspects) if crop else aspects[areas.argmax()]
        aspects = np.array([fullest])
    low, high = min(size, max_size / float(aspects.min())), min(size * float(aspects.max()), max_size)
    return _padded(round(low)), _padded(high)


def _padded(side: float) -> int:
    return -(-int(side + 1e-6) // STRIDE) * STRIDE
