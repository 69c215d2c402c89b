"""Several visual vectors of a category to one, by more than their mean."""

from __future__ import annotations

import torch

from trex2_lightning.ops.prompt_tokens import average
from trex2_lightning.structures import PromptTokens


def weighted_average(prompts: PromptTokens, temperature: float = 0.1) -> PromptTokens:
    """As `average`, but a vector counts the more, the more it is like the mean of its category's others.

    By a softmax of cosines over `temperature`, so that an odd exemplar has little say; of two vectors both count alike.

    Args:
        prompts: of batch size n, with one vector per category.
        temperature: of the softmax.
    """
    valid = prompts.valid[..., None]  # (n, C, 1)
    vectors = prompts.embed.masked_fill(~valid, 0)
    others = vectors.sum(0, keepdim=True) - vectors
    likeness = torch.cosine_similarity(vectors, others, dim=-1)[..., None] / temperature
    weights = likeness.masked_fill(~valid, torch.finfo(likeness.dtype).min).softmax(0)
    return average(prompts)._replace(embed=(weights * vectors).sum(0, keepdim=True))
