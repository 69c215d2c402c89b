"""Losses between the visual and the text vectors of the same categories.

B images (1 where a category has one vector for all of a step), C categories, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from trex2_lightning.config import AlignmentConfig

_IGNORED = -100


def alignment_loss(
    visual: Tensor, text: Tensor, shown: Tensor, config: AlignmentConfig, temperature: Tensor | None = None
) -> Tensor:
    """InfoNCE: a visual vector must be nearer to its category's text vector than to those of other categories.

    With the scope `step` the others are all categories, whether or not anything shows them. T-Rex2 has the scope
    `image`: they are those of the same image (issue 50), and equation 9 has dot products as they are, over 1. Where
    there is no other category, as in an image with one (issue 105), there is nothing to tell apart, nothing is added.

    Args:
        visual: (B, C, D), of no meaning where not `shown`.
        text: (B or 1, C, D).
        shown: (B, C) bool, the image gave exemplars of the category.
        config: scope, normalisation, temperature and direction.
        temperature: () one that is trained, in place of `config`'s.

    Returns:
        The mean over the anchors; without any a zero that depends on both sides, so that DDP does not hang.
    """
    visual = visual.masked_fill(~shown[..., None], 0)
    if config.normalize:
        visual, text = normalize(visual, dim=-1), normalize(text, dim=-1)
    similarities = visual @ text.transpose(1, 2)  # (B, visual C, text C)
    logits = similarities / (config.temperature if temperature is None else temperature)
    loss = _info_nce(logits, shown, shown if config.scope == "image" else torch.ones_like(shown))
    return (loss + _info_nce(logits.transpose(1, 2), shown, shown)) / 2 if config.symmetric else loss


def relation_loss(visual: Tensor, text: Tensor, shown: Tensor, config: AlignmentConfig) -> Tensor:
    """Relation distillation: categories whose texts are alike shall have visual vectors that are alike.

    DETR-ViP (arXiv 2604.14684): cross entropy between the softmax of the text vectors' cosines, which is not trained,
    and that of the visual ones, a category's likeness with itself included. Here of means over the images.

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


def _info_nce(logits: Tensor, shown: Tensor, candidates: Tensor) -> Tensor:
    """Mean over the `shown` rows (B, C) of `logits` (B, C, C), whose diagonal is to win among `candidates` (B, C)."""
    anchors = shown & (candidates.sum(1, keepdim=True) > 1)
    # Of all rows, as choosing the anchors' would wait for the device; the others' are made finite and then ignored.
    rows = logits.masked_fill(~candidates[:, None], -torch.inf).masked_fill(~anchors[..., None], 0)
    own = torch.arange(logits.shape[1], device=logits.device).where(anchors, _IGNORED)
    loss = cross_entropy(rows.flatten(0, 1), own.flatten(), reduction="sum", ignore_index=_IGNORED)
    return loss / anchors.sum().clamp(min=1)
