"""Losses between the visual and the text vectors of the same categories.

B images, C categories in the batch vocabulary, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from trex2_lightning.config import AlignmentConfig

_IGNORED = -100


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
    count = shown.sum(0)
    present = count > 0
    prototypes = visual.masked_fill(~shown[..., None], 0).sum(0) / count.clamp(min=1)[:, None]  # (C, D)
    seen, named = normalize(prototypes, dim=-1), normalize(text[0].detach(), dim=-1)
    lowest = torch.finfo(seen.dtype).min  # of what is not there; as a number, where nothing is
    wanted = (named @ named.T / config.text_temperature).masked_fill(~present, lowest).softmax(-1)
    likeness = (seen @ seen.T / config.visual_temperature).masked_fill(~present, lowest)
    losses = cross_entropy(likeness, wanted, reduction="none").where(present, 0)
    return losses.sum() / present.sum().clamp(min=1)


def _info_nce(logits: Tensor, shown: Tensor) -> Tensor:
    """Mean over the anchors of the rows of `logits` (B, C, C), whose diagonal is to win."""
    anchors = shown & (shown.sum(1, keepdim=True) > 1)
    # Of all rows, as choosing the anchors' would wait for the device; the others' are made finite and then ignored.
    rows = logits.masked_fill(~shown[:, None], -torch.inf).masked_fill(~anchors[..., None], 0)
    own = torch.arange(logits.shape[1], device=logits.device).where(anchors, _IGNORED)
    loss = cross_entropy(rows.flatten(0, 1), own.flatten(), reduction="sum", ignore_index=_IGNORED)
    return loss / anchors.sum().clamp(min=1)
