"""Exemplar boxes or points of a category to one vector (T-Rex2 section 3.1, with its author's corrections).

B images, C categories, M exemplars per category, N = M + 1 queries: the exemplars and the class token, L levels,
D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trex2_lightning.config import VisualPromptConfig
from trex2_lightning.layers.attention import Attention, DeformableAttention
from trex2_lightning.layers.mlp import FeedForward
from trex2_lightning.ops.position import box_embedding
from trex2_lightning.structures import Exemplars, FeatureMaps


class VisualPromptEncoder(nn.Module):
    """Reads the image at the exemplars and at the whole of it, for the class token, whose output is the vector.

    All categories of all images are one batch. The vector ends in the last feed-forward block's LayerNorm, so its
    length is comparable with a phrase's.
    """

    def __init__(
        self, config: VisualPromptConfig, width: int, heads: int, levels: int, points: int, dropout: float
    ) -> None:
        super().__init__()
        self.source = config.source
        self.content = nn.Parameter(torch.empty(1, width))
        self.class_token = nn.Parameter(torch.empty(1, width))
        self.box_embedding = ExemplarEmbedding(4, width, config.combine)
        self.point_embedding = ExemplarEmbedding(2, width, config.combine)
        self.blocks = nn.ModuleList(
            VisualPromptBlock(config, width, heads, levels, points, dropout) for _ in range(config.layers)
        )
        nn.init.xavier_uniform_(self.content)
        nn.init.xavier_uniform_(self.class_token)

    def forward(self, exemplars: Exemplars, features: FeatureMaps) -> Tensor:
        """Encode the exemplars of every category.

        Args:
            exemplars: of one kind.
            features: of the B images that they lie on.

        Returns:
            (B, C, D); for a category without exemplars, what the class token reads by itself.
        """
        if self.source == "neck":
            features = features._replace(tokens=features.neck)
        embedding = {"box": self.box_embedding, "point": self.point_embedding}[exemplars.kind]
        boxes = exemplars.boxes
        whole = boxes.new_ones(*boxes.shape[:2], 1, 4)
        whole[..., :2] = 0.5
        boxes = torch.cat([boxes, whole], 2)[..., : embedding.coordinates]  # (B, C, N, 2 or 4)
        content = torch.cat([self.content.expand(boxes.shape[2] - 1, -1), self.class_token])  # (N, D)
        x, position = embedding(boxes, content)
        scale = features.valid_ratios.repeat(1, 1, 2)[:, None, :, : embedding.coordinates]  # (B, 1, L, 2 or 4)
        reference = boxes.flatten(1, 2)[:, :, None] * scale
        attend = attention_within_category(exemplars.valid)
        for block in self.blocks:
            x = block(x, position, reference, features, attend)
        return x[:, :, -1]


class ExemplarEmbedding(nn.Module):
    """What a box (4 coordinates) or a point (2) starts from."""

    def __init__(self, coordinates: Literal[2, 4], width: int, combine: Literal["add", "concat"]) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.width = width
        self.position = nn.Linear(coordinates * width // 2, width)
        self.merge = nn.Linear(2 * width, width) if combine == "concat" else None

    def forward(self, boxes: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, C, N, 2 or 4) and content (N, D) -> queries and the position that attention adds, (B, C, N, D)."""
        position = self.position(box_embedding(boxes, self.width // 2))
        content = content.expand_as(position)
        if self.merge is None:
            return content, position
        return self.merge(torch.cat([content, position], -1)), torch.zeros_like(position)


class VisualPromptBlock(nn.Module):
    """Deformable cross-attention, self-attention within each category, feed-forward, each with post-normalisation."""

    def __init__(
        self, config: VisualPromptConfig, width: int, heads: int, levels: int, points: int, dropout: float
    ) -> None:
        super().__init__()
        self.cross_first = config.order == "cross_first"
        self.cross_attention = DeformableAttention(width, heads, levels, points)
        self.cross_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads, dropout)
        self.self_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, config.ffn, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, features: FeatureMaps, attend: Tensor) -> Tensor:
        """Queries and their position (B, C, N, D), reference (B, C * N, L, 2 or 4), mask (B * C, N, N)."""
        if self.cross_first:
            x = self._aggregate(self._read(x, position, reference, features), position, attend)
        else:
            x = self._read(self._aggregate(x, position, attend), position, reference, features)
        return self.feed_forward(x)

    def _read(self, x: Tensor, position: Tensor, reference: Tensor, features: FeatureMaps) -> Tensor:
        query = (x + position).flatten(1, 2)
        read = self.cross_attention(query, reference, features)
        return self.cross_norm(x + self.dropout(read.unflatten(1, x.shape[1:3])))

    def _aggregate(self, x: Tensor, position: Tensor, attend: Tensor) -> Tensor:
        query = (x + position).flatten(0, 1)
        seen = self.self_attention(query, query, x.flatten(0, 1), attend)
        return self.self_norm(x + self.dropout(seen.unflatten(0, x.shape[:2])))


def attention_within_category(valid: Tensor) -> Tensor:
    """Which query sees which, (B * C, N, N): valid exemplars and the class token are seen, and each query by itself.

    Args:
        valid: (B, C, M) bool.
    """
    seen = F.pad(valid, (0, 1), value=True).flatten(0, 1)  # (B * C, N)
    itself = torch.eye(seen.shape[-1], dtype=torch.bool, device=seen.device)  # an empty row of a mask gives NaN
    return seen[:, None] | itself
