"""Which images of a set have batches of their own: padding costs most where landscape and portrait share a batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from trex2_lightning.data.index.reading import Index
from trex2_lightning.data.records import ImageRecord

log = logging.getLogger(__name__)


def portrait_apart(images: Sequence[ImageRecord], least: int, key: str) -> NDArray[np.int64]:
    """(k,) places of the portrait images, or none, if these or the others (landscape and square) are less than `least`.

    Fewer images than an optimizer step takes would come several times in one step, so they share the others' batches;
    the log says it, as such a batch is padded to a square.

    Args:
        images: of a set.
        least: images of an optimizer step, over all ranks and accumulated batches.
        key: what names the set, for the log.
    """
    portrait = _portrait(images)
    fewer = min(len(portrait), len(images) - len(portrait))
    if fewer >= least:
        return portrait
    if fewer:
        told = "%s: %d images are portrait and %d are not: fewer than an optimizer step's %d, so they share batches"
        rank_zero_only(log.info)(told, key, len(portrait), len(images) - len(portrait), least)
    return portrait[:0]


def in_place_of(images: Sequence[ImageRecord], first: int) -> Iterator[int]:
    """The places of all images: `first`, then what may stand for it, those of its orientation before the others."""
    yield first
    portrait = is_portrait(images[first])
    for alike in (True, False):
        for place in chain(range(first + 1, len(images)), range(first)):
            if (is_portrait(images[place]) == portrait) == alike:
                yield place


def is_portrait(image: ImageRecord) -> bool:
    return image.height > image.width


def _portrait(images: Sequence[ImageRecord]) -> NDArray[np.int64]:
    if isinstance(images, Index):  # millions of images, of which no record is made
        return images.portrait()
    return np.flatnonzero([is_portrait(image) for image in images])
