"""Prompt tokens of category vectors, and their means over reference images, text and a batch (T-Rex2 section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from trex2_lightning.structures import PromptTokens


def from_vectors(vectors: Tensor, valid: Tensor | None = None) -> PromptTokens:
    """Prompt tokens of one vector per category.

    Args:
        vectors: (B or 1, C, D).
        valid: (B or 1, C) bool; None: all are.
    """
    index = torch.arange(vectors.shape[1], device=vectors.device)
    return PromptTokens(
        embed=vectors,
        valid=torch.ones_like(vectors[..., 0], dtype=torch.bool) if valid is None else valid,
        category=index,
        attend=torch.eye(len(index), dtype=torch.bool, device=vectors.device),
        position=torch.zeros_like(index),
    )


def average(*prompts: PromptTokens) -> PromptTokens:
    """The mean of each category's valid vectors over all images of all `prompts`, for any image.

    With `text` of batch size 1 and `visual` of n reference images, both of one vector per category:

    - `average(visual)`: generic prompts (T-Rex2, equation 11);
    - `average(text, average(visual))`: mixed prompts, half and half (T-Rex2, section 3.4);
    - `average(text, visual)`: mixed prompts, the plain mean of n + 1 vectors (T-Rex issue 98).

    Args:
        prompts: of the same C categories; a category counts where it is valid.

    Returns:
        Of batch size 1; a category that is valid nowhere stays so, with a vector of zeros. `text` and `visual`, for
        the alignment loss, stay those of the first argument.
    """
    vectors = torch.cat([p.embed for p in prompts])  # (n, C, D)
    valid = torch.cat([p.valid for p in prompts])  # (n, C)
    total = vectors.masked_fill(~valid[..., None], 0).sum(0, keepdim=True)
    mean = total / valid.sum(0, keepdim=True).clamp(min=1)[..., None]
    return prompts[0]._replace(embed=mean, valid=valid.any(0, keepdim=True))


def complete(prompts: PromptTokens, others: PromptTokens) -> PromptTokens:
    """`prompts`, and where they are not valid the vectors of `others` (of batch size B or 1).

    `complete(visual, average(visual))` gives an image its own exemplars, and for the categories that it lacks those of
    the other images of its batch.
    """
    embed = prompts.embed.where(prompts.valid[..., None], others.embed)
    return prompts._replace(embed=embed, valid=prompts.valid | others.valid)
