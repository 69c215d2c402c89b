"""Sigmoid focal loss over prompt tokens: a category's target is spread over its tokens.

A phrase or a visual prompt is one token, so T = C and this is the loss of Deformable DETR and DINO; with several
tokens per category it is that of Grounding DINO (its section 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

from trex2_lightning.structures import PromptTokens, Targets


def token_targets(labels: Tensor, category: Tensor) -> Tensor:
    """Which tokens belong to the category that each query should predict.

    Args:
        labels: (...) int64 categories, -1 for "nothing".
        category: (T,) int64, the category of each token, -1 for a separator.

    Returns:
        (..., T) bool, all False in a row of "nothing".
    """
    labels = labels.unsqueeze(-1)
    return (labels == category) & (labels >= 0)


def known_tokens(prompts: PromptTokens, judged: Tensor | None) -> Tensor:
    """(B or 1, T) bool: real tokens whose category `judged` (B, C) knows about.

    Separators are known too, to be nothing: they take part in query selection, so their scores must be low.
    """
    if judged is None:
        return prompts.valid
    return prompts.valid & (judged[:, prompts.category.clamp(min=0)] | (prompts.category < 0))


def focal_loss(logits: Tensor, targets: Tensor, mask: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum of the sigmoid focal loss (RetinaNet, equation 5) where `mask` is True; elsewhere logits may be infinite.

    Args:
        logits: (..., T).
        targets: (..., T) bool.
        mask: broadcastable to (..., T) bool.
        alpha: weight of the positive targets against 1 - alpha of the negative ones.
        gamma: exponent that plays down what is predicted well.
    """
    losses = sigmoid_focal_loss(logits.masked_fill(~mask, 0), targets.to(logits.dtype), alpha, gamma)
    return losses.masked_fill(~mask, 0).sum()


def presence_loss(logits: Tensor, targets: Sequence[Targets], prompts: PromptTokens, known: Tensor) -> Tensor:
    """Binary cross entropy of whether an image has a category: the mean over the categories that images judge.

    Args:
        logits: (B, T), the same for all tokens of a category.
        targets: B images; what is marked is there, whether or not the category is judged.
        prompts: what they are asked for.
        known: (B or 1, T) bool, as `known_tokens`.
    """
    category = prompts.category
    wanted = torch.stack([token_targets(target.labels, category).any(0) for target in targets])  # (B, T)
    counted = (known | (wanted & prompts.valid)) & (category >= 0)
    weight = counted / (category == category[:, None]).sum(-1)  # a category counts once, whatever its tokens
    losses = binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype), reduction="none")
    return (losses * weight).sum() / weight.sum().clamp(min=1)
