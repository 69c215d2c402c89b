"""Which boxes of the ground truth a visual iteration shows as exemplars (T-Rex2, section 3.3).

B images, C categories in the batch vocabulary, M exemplars per category, n boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trex2_lightning.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from trex2_lightning.ops.padding import pad_boxes
from trex2_lightning.structures import ExemplarKind, Exemplars, Targets

MOST_JITTER = 20  # pixels
MOST_COVERED = 0.1  # of a background box, by any marked one
TRIES = 16  # boxes that are drawn for each that is wanted


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


def jittered(exemplars: Exemplars, sizes: Tensor, share: float, generator: torch.Generator) -> Exemplars:
    """Exemplars as a person's hand marks them: each side of a box moves by itself, by up to `share` of the box's side.

    Args:
        exemplars: of B images.
        sizes: (B, 2) height and width of the images in pixels; no side moves by more than `MOST_JITTER` of them.
        share: of the box's width or height.
        generator: the only source of randomness.
    """
    corners = cxcywh_to_xyxy(exemplars.boxes)
    most = torch.minimum(share * exemplars.boxes[..., 2:], MOST_JITTER / sizes.flip(-1)[:, None, None])  # (B, C, M, 2)
    moved = corners + (2 * torch.rand(corners.shape, generator=generator) - 1) * most.repeat(1, 1, 1, 2)
    return exemplars._replace(boxes=xyxy_to_cxcywh(moved.clamp(0, 1)))


def background_exemplars(
    targets: Sequence[Targets], limit: int, kind: ExemplarKind, generator: torch.Generator
) -> Exemplars:
    """Up to `limit` boxes of each image that hold next to nothing marked, of one category: (B, 1, M, 4).

    As large as the image's own boxes, at random places; fewer where there is little room, and none in an image without
    boxes, of whose things nothing is known.
    """
    chosen = []
    for target in targets:
        count = TRIES * limit if len(target.boxes) else 0
        sides = target.boxes[torch.randint(max(len(target.boxes), 1), (count,), generator=generator), 2:]
        centres = sides / 2 + (1 - sides) * torch.rand(count, 2, generator=generator)
        boxes = torch.cat([centres, sides], -1)
        chosen.append(boxes[_covered(boxes, target.boxes) < MOST_COVERED][:limit])
    boxes, valid = pad_boxes(chosen)
    return Exemplars(boxes[:, None], valid[:, None], kind)


def _covered(boxes: Tensor, others: Tensor) -> Tensor:
    """(n,) the largest share of a box (n, 4) that lies in one of the others (m, 4), 0 without others."""
    one, two = cxcywh_to_xyxy(boxes)[:, None], cxcywh_to_xyxy(others)
    low, high = torch.maximum(one[..., :2], two[..., :2]), torch.minimum(one[..., 2:], two[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)  # (n, m)
    return (shared / boxes[:, None, 2:].prod(-1)).amax(-1) if len(others) else shared.new_zeros(len(boxes))


def _some(boxes: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Between one and `limit` of the boxes, without repetition; none where there are none."""
    if not len(boxes):
        return boxes
    count = int(torch.randint(1, min(len(boxes), limit) + 1, (), generator=generator))
    return boxes[torch.randperm(len(boxes), generator=generator)[:count]]
