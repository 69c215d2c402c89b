"""Attention over tokens and over image features.

B batch, Q queries, N keys, h heads, L levels, P points, S image tokens, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trex2_lightning.ops.deformable import deformable_sampling
from trex2_lightning.structures import FeatureMaps


class Attention(nn.Module):
    """Multi-head attention whose mask is True where a key may be seen, for each image on its own.

    `nn.MultiheadAttention` has the opposite polarity and wants such a mask repeated for every head.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attend: Tensor | None = None) -> Tensor:
        """(B, Q, D), (B, N, D), (B, N, D) and a mask (B or 1, Q, N) with a True in every row -> (B, Q, D)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )  # (B, h, Q or N, D / h)
        mask = None if attend is None else attend[:, None]
        x = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        return self.output(x.transpose(1, 2).flatten(2))


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (Deformable DETR, section 4.1)."""

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self._init_parameters()

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        features: FeatureMaps,
    ) -> Tensor:
        """Each query reads the image around its reference.

        Args:
            query: (B, Q, D).
            reference: (B, Q, L, 2) points, or (B, Q, L, 4) cxcywh boxes, as shares of each padded map.
            features: of the image; tokens that are not valid read as zero.

        Returns:
            (B, Q, D)
        """
        if torch.is_autocast_enabled(query.device.type):  # once, not for each of the two layers
            query = query.to(torch.get_autocast_dtype(query.device.type))
        value = self.value(features.tokens).masked_fill(~features.valid[..., None], 0).unflatten(-1, (self.heads, -1))
        offsets = self.offsets(query).unflatten(-1, (self.heads, self.levels, self.points, 2))
        weights = self.weights(query).unflatten(-1, (self.heads, self.levels * self.points)).softmax(-1)
        centre = reference[:, :, None, :, None, :2]  # (B, Q, 1, L, 1, 2)
        if reference.shape[-1] == 4:
            scale = reference[:, :, None, :, None, 2:] / (2 * self.points)
        else:
            scale = 1 / features.levels[:, None, :2].flip(-1)  # (L, 1, 2)
        full = torch.promote_types(value.dtype, torch.float32)  # half precision is too coarse for coordinates
        locations = centre.to(full) + offsets.to(full) * scale.to(full)
        with torch.autocast(query.device.type, enabled=False):
            weights = weights.unflatten(-1, (self.levels, self.points))
            x = deformable_sampling(value, features.shapes, locations, weights, features.levels)
        return self.output(x)

    def _init_parameters(self) -> None:
        """Heads look in different directions, points at growing distances, all with equal weight."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)  # (h, 2)
        distance = torch.arange(1, self.points + 1)
        bias = direction[:, None, None] * distance[:, None]  # (h, 1, P, 2)
        nn.init.zeros_(self.offsets.weight)
        with torch.no_grad():
            self.offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
