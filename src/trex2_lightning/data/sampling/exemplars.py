"""Which boxes of the ground truth a visual iteration shows as exemplars (T-Rex2, section 3.3).

B images, C categories in the batch vocabulary, M exemplars per category, n boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trex2_lightning.ops.padding import pad_boxes
from trex2_lightning.structures import ExemplarKind, Exemplars, Targets


def sample_exemplars(
    targets: Sequence[Targets], num_categories: int, limit: int, kind: ExemplarKind, generator: torch.Generator
) -> Exemplars:
    """For each category of each image a random number of its boxes, from one to all of them (issues 50, 66 and 104).

    Args:
        targets: B images.
        num_categories: C.
        limit: most exemplars of a category in an image.
        kind: of all exemplars.
        generator: the only source of randomness.

    Returns:
        In random order, not valid where a category of the image has fewer than M, the largest number drawn, at least 1.
    """
    chosen = [
        _some(target.boxes[target.labels == category], limit, generator)
        for target in targets
        for category in range(num_categories)
    ]
    layout = (len(targets), num_categories, -1)
    boxes, valid = pad_boxes(chosen)
    return Exemplars(boxes.view(*layout, 4), valid.view(layout), kind)


def _some(boxes: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Between one and `limit` of the boxes, without repetition; none where there are none."""
    if not len(boxes):
        return boxes
    count = int(torch.randint(1, min(len(boxes), limit) + 1, (), generator=generator))
    return boxes[torch.randperm(len(boxes), generator=generator)[:count]]
