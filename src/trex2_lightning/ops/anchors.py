"""Anchors and reference points on the tokens of a feature pyramid (Deformable DETR, two-stage)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def token_centres(shapes: Sequence[tuple[int, int]], valid_ratios: Tensor) -> Tensor:
    """Centre of every token as (x, y) in the unpadded image: (B, S, 2); beyond 1 in the padding.

    Args:
        shapes: L x (height, width).
        valid_ratios: (B, L, 2).
    """
    centres = []
    for level, (height, width) in enumerate(shapes):
        # Not `linspace`, whose number of steps an exported graph would keep.
        y = (torch.arange(height, device=valid_ratios.device) + 0.5) / height
        x = (torch.arange(width, device=valid_ratios.device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)  # (H * W, 2)
        centres.append(grid / valid_ratios[:, level, None])
    return torch.cat(centres, 1)


def anchors(
    shapes: Sequence[tuple[int, int]], valid: Tensor, valid_ratios: Tensor, size: float
) -> tuple[Tensor, Tensor]:
    """One square anchor per token, its side doubling from level to level.

    Args:
        shapes: L x (height, width).
        valid: (B, S) bool.
        valid_ratios: (B, L, 2).
        size: side on the finest level as a share of the image.

    Returns:
        Anchors (B, S, 4) and which tokens may propose (B, S): not padding, and centre and side at least 0.01
        away from 0 and 1, where the logit of a coordinate runs away.
    """
    centres = token_centres(shapes, valid_ratios)
    sides = torch.cat([centres.new_full((h * w,), size * 2**level) for level, (h, w) in enumerate(shapes)])
    boxes = torch.cat([centres, sides[None, :, None].expand(len(centres), -1, 2)], -1)
    usable = valid & ((boxes > 0.01) & (boxes < 0.99)).all(-1)
    return boxes, usable
