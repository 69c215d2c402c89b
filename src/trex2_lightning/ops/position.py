"""Fixed sine-cosine position embeddings of feature maps and of boxes (DETR, DAB-DETR)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_embedding(x: Tensor, width: int, temperature: float = 10_000) -> Tensor:
    """Embed coordinates in [0, 1]: (..., n) -> (..., n * width), sines and cosines interleaved."""
    exponent = 2 * (torch.arange(width, device=x.device) // 2) / width
    phase = x[..., None] * (2 * math.pi) / temperature**exponent  # (..., n, width)
    return torch.stack([phase[..., 0::2].sin(), phase[..., 1::2].cos()], -1).flatten(-3)


def box_embedding(boxes: Tensor, width: int) -> Tensor:
    """Embed cxcywh boxes (..., 4) or points (..., 2) as (..., n * width), in DETR's order y, x, (w, h)."""
    return sine_embedding(torch.cat([boxes[..., :2].flip(-1), boxes[..., 2:]], -1), width)


def map_embedding(valid: Tensor, width: int, temperature: float = 20) -> Tensor:
    """Embed each place of a padded map by its coordinates in the unpadded image.

    Args:
        valid: (B, H, W) bool.
        width: D, a multiple of 4.
        temperature: 20, as in DINO.

    Returns:
        (B, H * W, D), y before x.
    """
    y = valid.cumsum(1, dtype=torch.float32)
    x = valid.cumsum(2, dtype=torch.float32)
    y = y / (y[:, -1:] + 1e-6)
    x = x / (x[:, :, -1:] + 1e-6)
    return sine_embedding(torch.stack([y, x], -1), width // 2, temperature).flatten(1, 2)
