"""DINO's decoder: deformable cross-attention with box refinement in every layer.

B images, Q queries (noised ones first), T context tokens, K layers, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trex2_lightning.layers.attention import Attention, DeformableAttention
from trex2_lightning.layers.mlp import MLP, FeedForward
from trex2_lightning.ops.boxes import inverse_sigmoid
from trex2_lightning.ops.position import box_embedding
from trex2_lightning.structures import FeatureMaps


class Decoder(nn.Module):
    """Refines boxes layer by layer; "look forward twice" lets each layer's loss reach the layer before (DINO 3.5).

    Args:
        context: the queries attend to context tokens too, as in Grounding DINO.
        shared_box_head: one box head for all layers.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        heads: int,
        levels: int,
        points: int,
        ffn: int,
        dropout: float,
        *,
        context: bool = False,
        shared_box_head: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.reads_context = context
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, levels, points, ffn, dropout, context=context) for _ in range(layers)
        )
        self.position = MLP(2 * width, width, width, 2)
        self.norm = nn.LayerNorm(width)
        box_heads = [BoxHead(width)] * layers if shared_box_head else [BoxHead(width) for _ in range(layers)]
        self.box_heads = nn.ModuleList(box_heads)

    def forward(
        self,
        content: Tensor,
        boxes: Tensor,
        features: FeatureMaps,
        attend: Tensor | None,
        context: Tensor | None = None,
        context_valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode the queries.

        Args:
            content: (B, Q, D).
            boxes: (B, Q, 4) initial boxes.
            features: the encoded image.
            attend: (B, Q, Q) bool, which query sees which.
            context: (B, T, D), read by a decoder that was built for it.
            context_valid: (B or 1, T) bool.

        Returns:
            Normalised query vectors (K, B, Q, D) and boxes (K, B, Q, 4).
        """
        scale = features.valid_ratios.repeat(1, 1, 2)[:, None]  # (B, 1, L, 4)
        queries, refined = [], []
        previous = boxes
        if context_valid is not None:  # where nothing is valid, what is seen has no meaning, but must not be NaN
            context_valid = context_valid | ~context_valid.any(-1, keepdim=True)
        for layer, box_head in zip(self.layers, self.box_heads, strict=True):
            reference = boxes[:, :, None] * scale
            position = self.position(box_embedding(reference[:, :, 0], content.shape[-1] // 2))
            content = layer(content, position, reference, features, attend, context, context_valid)
            queries.append(self.norm(content))
            refined.append(box_head(queries[-1], previous))
            previous = box_head(content, boxes)
            boxes = previous.detach()
        return torch.stack(queries), torch.stack(refined)


class DecoderLayer(nn.Module):
    """Self-attention among queries, attention to a context, deformable attention to the image, feed-forward."""

    def __init__(
        self, width: int, heads: int, levels: int, points: int, ffn: int, dropout: float, *, context: bool
    ) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.self_norm = nn.LayerNorm(width)
        self.context_attention = Attention(width, heads, dropout) if context else None
        self.context_norm = nn.LayerNorm(width) if context else nn.Identity()
        self.cross_attention = DeformableAttention(width, heads, levels, points)
        self.cross_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, ffn, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        reference: Tensor,
        features: FeatureMaps,
        attend: Tensor | None,
        context: Tensor | None,
        context_valid: Tensor | None,
    ) -> Tensor:
        """Queries `x` (B, Q, D) at `position` (B, Q, D) and `reference` (B, Q, L, 4) -> (B, Q, D)."""
        q = x + position
        x = self.self_norm(x + self.dropout(self.self_attention(q, q, x, attend)))
        if self.context_attention is not None and context is not None:
            seen = None if context_valid is None else context_valid[:, None]  # (B or 1, 1, T)
            x = self.context_norm(x + self.dropout(self.context_attention(x + position, context, context, seen)))
        cross = self.cross_attention(x + position, reference, features)
        return self.feed_forward(self.cross_norm(x + self.dropout(cross)))


class BoxHead(nn.Module):
    """Moves a box by what its query says; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = MLP(width, width, 4, 3)
        for parameter in self.mlp[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, boxes: Tensor) -> Tensor:
        """(..., D) and cxcywh boxes (..., 4) -> boxes (..., 4), in float32 logits."""
        return (self.mlp(x).float() + inverse_sigmoid(boxes.float())).sigmoid()
