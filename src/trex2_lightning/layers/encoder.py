"""Deformable transformer encoder over the image tokens of all levels (Deformable DETR, section 4.1)."""

from __future__ import annotations

from torch import Tensor, nn

from trex2_lightning.layers.attention import DeformableAttention
from trex2_lightning.layers.mlp import FeedForward
from trex2_lightning.layers.recomputation import call
from trex2_lightning.ops.anchors import token_centres
from trex2_lightning.structures import FeatureMaps


class DeformableEncoder(nn.Module):
    """A stack of deformable self-attention layers."""

    def __init__(self, layers: int, width: int, heads: int, levels: int, points: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(width, heads, levels, points, ffn, dropout) for _ in range(layers)
        )
        self.recomputed = False  # the layers, in the backward pass

    def forward(self, features: FeatureMaps) -> FeatureMaps:
        """The same maps with new `tokens` (B, S, D)."""
        reference = token_references(features)
        for layer in self.layers:
            features = features._replace(tokens=call(layer, features, reference, recomputed=self.recomputed))
        return features


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention, then feed-forward, each with post-normalisation."""

    def __init__(self, width: int, heads: int, levels: int, points: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.attention = DeformableAttention(width, heads, levels, points)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, ffn, dropout)

    def forward(self, features: FeatureMaps, reference: Tensor) -> Tensor:
        """Tokens (B, S, D) attend to tokens around `reference` (B, S, L, 2); returns (B, S, D)."""
        tokens = features.tokens
        x = self.attention(tokens + features.pos, reference, features)
        return self.feed_forward(self.norm(tokens + self.dropout(x)))


def token_references(features: FeatureMaps) -> Tensor:
    """Every token's own place on each padded map: (B, S, L, 2)."""
    centres = token_centres(features.shapes, features.valid_ratios)
    return centres[:, :, None] * features.valid_ratios[:, None]
