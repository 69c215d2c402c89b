"""Which images of the reference split stand for a category in generic prompts (T-Rex2, section 4)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch

from trex2_lightning.data.records import Records

References = dict[int, dict[int, int]]  # image id -> {category that it was drawn for: place in the category's draw}


def draw_references(records: Records, limit: int, seed: int) -> References:
    """Draw for every category up to `limit` of the images that have a box of it, all where there are fewer (issue 90).

    A category's draw depends on its name and the seed alone, and one with a smaller limit is its beginning. Crowds are
    no boxes.
    """
    candidates: list[list[int]] = [[] for _ in records.names]
    for image in records.images:
        for category in image.labels[~image.crowd].unique().tolist():
            candidates[category].append(image.id)
    drawn: References = {}
    for category, (name, image_ids) in enumerate(zip(records.names, candidates, strict=True)):
        random.Random(f"{seed} {name}").shuffle(image_ids)
        for place, image_id in enumerate(image_ids[:limit]):
            drawn.setdefault(image_id, {})[category] = place
    return drawn


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
    index = {name: label for label, name in enumerate(names)}
    place = torch.tensor([index.get(name, -1) for name in records.names])
    images = []
    for image in records.images:
        labels = place[image.labels]
        known = labels >= 0
        boxes, crowd, area = image.boxes[known], image.crowd[known], image.area[known]
        judged = None if image.judged is None else place[image.judged][place[image.judged] >= 0]
        images.append(image._replace(boxes=boxes, labels=labels[known], crowd=crowd, area=area, judged=judged))
    return records._replace(images=images, names=tuple(names), category_ids=(), groups=())
