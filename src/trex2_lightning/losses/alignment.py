"""Losses between the visual and the text vectors of the same categories.

B images, C categories in the batch vocabulary, A anchors: categories of an image that take part, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from trex2_lightning.config import AlignmentConfig
from trex2_lightning.ops.prompt_tokens import average, from_vectors


def alignment_loss(visual: Tensor, text: Tensor, shown: Tensor, config: AlignmentConfig) -> Tensor:
    """InfoNCE: a visual vector must be nearer to its category's text vector than to those of the image's others.

    T-Rex2, equation 9: dot products as they are, from the visual to the text side. The candidates are the categories
    of the image (issue 50); an image with fewer than two has nothing to tell apart and adds nothing (issue 105).

    Args:
        visual: (B, C, D), of no meaning where not `shown`.
        text: (B or 1, C, D).
        shown: (B, C) bool, the image gave exemplars of the category.
        config: temperature, normalisation and direction.

    Returns:
        The mean over the anchors; without any a zero that depends on both sides, so that DDP does not hang.
    """
    visual = visual.masked_fill(~shown[..., None], 0)
    if config.normalize:
        visual, text = normalize(visual, dim=-1), normalize(text, dim=-1)
    logits = visual @ text.transpose(1, 2) / config.temperature  # (B, visual C, text C)
    loss = _info_nce(logits, shown)
    return (loss + _info_nce(logits.transpose(1, 2), shown)) / 2 if config.symmetric else loss


def relation_loss(visual: Tensor, text: Tensor, shown: Tensor, config: AlignmentConfig) -> Tensor:
    """Relation distillation: categories whose texts are alike shall have visual vectors that are alike.

    DETR-ViP (arXiv 2604.14684): cross entropy between the softmax of the text vectors' cosines, which is not trained,
    and that of the visual ones, a category's likeness with itself included. Here of the batch's class prototypes.

    Args:
        visual: (B, C, D), of no meaning where not `shown`.
        text: (1, C, D).
        shown: (B, C) bool, the image gave exemplars of the category.
        config: temperatures.

    Returns:
        The mean over the categories that any image shows; a zero that depends on `visual` where there is none.
    """
    prototypes = average(from_vectors(visual, shown))
    present = prototypes.valid[0]
    seen = normalize(prototypes.embed[0, present], dim=-1)
    named = normalize(text[0, present].detach(), dim=-1)
    wanted = (named @ named.T / config.text_temperature).softmax(-1)
    loss = cross_entropy(seen @ seen.T / config.visual_temperature, wanted, reduction="sum")
    return loss / present.sum().clamp(min=1)


def _info_nce(logits: Tensor, shown: Tensor) -> Tensor:
    """Mean over the anchors of the rows of `logits` (B, C, C), whose diagonal is to win."""
    anchors = shown & (shown.sum(1, keepdim=True) > 1)
    rows = logits.masked_fill(~shown[:, None], -torch.inf)[anchors]  # (A, C)
    return cross_entropy(rows, anchors.nonzero()[:, 1], reduction="sum") / anchors.sum().clamp(min=1)
