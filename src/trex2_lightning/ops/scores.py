"""From logits to scores and ranked detections."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trex2_lightning.ops.boxes import cxcywh_to_xyxy


class Ranked(NamedTuple):
    """The best detections of each image, best first."""

    scores: Tensor  # (B, n)
    labels: Tensor  # (B, n) int64
    boxes: Tensor  # (B, n, 4)
    pairs: Tensor  # (B, n) int64, which of the Q * C pairs of query and category it is


def category_scores(logits: Tensor, category: Tensor, valid: Tensor) -> Tensor:
    """A category's score is the mean of its valid tokens' sigmoids (one token: itself), 0 without tokens.

    In float32 under autocast too: bfloat16 has three digits, in which good detections tie.

    Args:
        logits: (..., B, Q, T).
        category: (T,) int64, -1 for tokens of no category.
        valid: (B or 1, T) bool.

    Returns:
        (..., B, Q, C)
    """
    num_categories = int(category.max()) + 1
    member = category == torch.arange(num_categories, device=category.device)[:, None]  # (C, T)
    share = (member & valid[:, None]).float()  # (B or 1, C, T)
    share = share / share.sum(-1, keepdim=True).clamp(min=1)
    with torch.autocast(logits.device.type, enabled=False):
        return logits.float().sigmoid() @ share.transpose(1, 2)


def without(unwanted: Tensor, scores: Tensor) -> Tensor:
    """Scores (B, Q, C), -inf for the `unwanted` (C,) bool categories and for queries whose best score is one of theirs.

    What negative prompts do: the boxes of some categories are dropped (T-Rex issues 91 and 106), and a query's box is
    its best category's. Other queries keep all their scores.
    """
    taken = unwanted[scores.argmax(-1, keepdim=True)]  # (B, Q, 1)
    return scores.masked_fill(taken | unwanted, -torch.inf)


def rank(scores: Tensor, boxes: Tensor, limit: int) -> Ranked:
    """The `limit` best pairs of query and category, by scores (B, Q, C) with boxes (B, Q, 4)."""
    num_categories = scores.shape[-1]
    best, index = scores.flatten(1).topk(min(limit, scores[0].numel()))
    chosen = (index // num_categories)[..., None].expand(-1, -1, 4)
    return Ranked(best, index % num_categories, boxes.gather(1, chosen), index)


def to_pixels(boxes: Tensor, sizes: Tensor) -> Tensor:
    """cxcywh in [0, 1] (B, n, 4) to xyxy in pixels of images with (height, width) `sizes` (B, 2), clipped to them."""
    return cxcywh_to_xyxy(boxes).clamp(0, 1) * sizes.flip(-1).repeat(1, 2)[:, None]
