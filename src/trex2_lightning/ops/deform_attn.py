"""Multi-scale deformable attention's sampling (Deformable DETR, equation 3) in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def deformable_sampling(value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples around each query's sampling points.

    h heads, d = D / h channels per head, P points per head and level.

    Args:
        value: (B, S, h, d) image tokens of all levels.
        shapes: L x (height, width), S = sum of height * width.
        locations: (B, Q, h, L, P, 2) as (x, y), 0 and 1 being the borders of the padded map; outside samples 0.
        weights: (B, Q, h, L, P), summing to one over L and P.

    Returns:
        (B, Q, D)
    """
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B * h, Q, L, P, 2)
    levels = value.split([height * width for height, width in shapes], 1)
    samples = [
        F.grid_sample(
            tokens.permute(0, 2, 3, 1).reshape(batch * heads, channels, *shape),
            grid[:, :, level],
            align_corners=False,
        )  # (B * h, d, Q, P)
        for level, (tokens, shape) in enumerate(zip(levels, shapes, strict=True))
    ]
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    mixed = (torch.cat(samples, -1) * weights).sum(-1)  # (B * h, d, Q)
    return mixed.reshape(batch, heads * channels, queries).transpose(1, 2)
