"""Which images of the reference split stand for a category in generic prompts (T-Rex2, section 4)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trex2_lightning.data.index.reading import annotation_columns
from trex2_lightning.data.records import Records

References = dict[int, dict[int, int]]  # image id -> {category that it was drawn for: place in the category's draw}


class DrawnReferences(NamedTuple):
    """A draw, and the images that it takes."""

    references: References
    records: Records  # the drawn images alone, in their order, with labels that index the names asked for
    num_boxes: int  # of these names in the whole split, without crowds


def draw_references(records: Records, names: Sequence[str], limit: int, seed: int) -> DrawnReferences:
    """Draw for every category up to `limit` of the images that have a box of it, all where there are fewer (issue 90).

    A category's draw depends on its name and the seed alone, and one with a smaller limit is its beginning. Crowds are
    no boxes. Of an index the columns are looked through, and the drawn images alone are read.
    """
    labels_of = np.asarray(places_of(records.names, names), np.int64)
    candidates: list[list[NDArray[np.int64]]] = [[] for _ in names]
    first = num_boxes = 0
    for _, crowd, labels, stops in annotation_columns(records):
        owners = np.repeat(np.arange(first, first + len(stops)), np.diff(stops, prepend=0))
        own = labels_of[labels]
        shown = ~crowd & (own >= 0)
        pairs = np.unique(np.stack([own[shown], owners[shown]]), axis=1)  # by category, then image
        for category, images in zip(*_split(pairs), strict=True):
            candidates[category].append(images)
        first, num_boxes = first + len(stops), num_boxes + int(shown.sum())
    drawn: dict[int, dict[int, int]] = {}  # by the image's place
    for category, (name, parts) in enumerate(zip(names, candidates, strict=True)):
        places = np.concatenate([np.zeros(0, np.int64), *parts]).tolist()
        random.Random(f"{seed} {name}").shuffle(places)
        for rank, place in enumerate(places[:limit]):
            drawn.setdefault(place, {})[category] = rank
    taken = {place: records.images[place] for place in sorted(drawn)}
    references = {taken[place].id: own for place, own in drawn.items()}
    return DrawnReferences(references, relabelled(records._replace(images=[*taken.values()]), names), num_boxes)


class Support(NamedTuple):
    """What the generic prompts of an evaluation are made of."""

    images: int  # different ones
    exemplars: dict[str, int]  # boxes by category, 0 where there is none
    left_out: int  # boxes of the reference split that are not shown, as more images have the category than are drawn

    def __str__(self) -> str:
        fewest = min(self.exemplars, key=self.exemplars.__getitem__, default="")
        least = f", fewest {self.exemplars[fewest]} of {fewest}" if fewest else ""
        return (
            f"{sum(self.exemplars.values())} exemplars of {len(self.exemplars)} categories in {self.images} images"
            f"{least}; {self.left_out} boxes of the reference split left out"
        )


def support(records: Records, references: References, count: int, num_boxes: int) -> Support:
    """What the first `count` images of each category's draw show: all of its boxes there.

    Args:
        records: have the drawn images.
        references: the draw.
        count: images per category.
        num_boxes: of the whole reference split, without crowds and categories that nobody asks for.
    """
    exemplars, images = dict.fromkeys(records.names, 0), 0
    for image in records.images:
        shown = [label for label, place in references.get(image.id, {}).items() if place < count]
        images += bool(shown)
        for label in shown:
            exemplars[records.names[label]] += int(((image.labels == label) & ~image.crowd).sum())
    return Support(images, exemplars, num_boxes - sum(exemplars.values()))


def relabelled(records: Records, names: Sequence[str]) -> Records:
    """The images with labels that index `names`, for a split whose file lists other categories or another order.

    Boxes of categories that `names` lacks are left out; ids and groups of the categories go, as none were given.
    """
    place = torch.tensor(places_of(records.names, names))
    images = []
    for image in records.images:
        labels = place[image.labels]
        known = labels >= 0
        boxes, crowd, area = image.boxes[known], image.crowd[known], image.area[known]
        judged = None if image.judged is None else place[image.judged][place[image.judged] >= 0]
        images.append(image._replace(boxes=boxes, labels=labels[known], crowd=crowd, area=area, judged=judged))
    return records._replace(images=images, names=tuple(names), category_ids=(), groups=())


def places_of(found: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where each name of one file is among those of another; -1: nowhere.

    Where none is the same, it is the one that differs in case or blanks alone: an index has one spelling of a name, and
    other files their own.
    """
    exact = {name: place for place, name in enumerate(names)}
    loose: dict[str, list[int]] = {}
    for name in exact.keys() - set(found):
        loose.setdefault(_folded(name), []).append(exact[name])
    near = {name: places[0] for name, places in loose.items() if len(places) == 1}
    return [exact.get(name, near.get(_folded(name), -1)) for name in found]


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _split(pairs: NDArray[np.int64]) -> tuple[list[int], list[NDArray[np.int64]]]:
    """(2, n) sorted keys and values to each key once, and its values."""
    keys, starts = np.unique(pairs[0], return_index=True)
    return keys.tolist(), np.split(pairs[1], starts)[1:]
