"""From image tokens to queries by their similarity with the prompts (Grounding DINO section 3.2).

B images, T prompt tokens, S image tokens, Q queries, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trex2_lightning.errors import InputError
from trex2_lightning.layers.decoder import BoxHead
from trex2_lightning.ops.anchors import anchors
from trex2_lightning.structures import Detections, FeatureMaps, PromptTokens


class SimilarityHead(nn.Module):
    """Logit of a token for a prompt: their dot product over sqrt(D), plus a learned bias that starts at the `prior`.

    In float32 under autocast too: bfloat16 has three digits, in which good detections tie.

    T-Rex2 names neither scale nor bias; every public re-implementation has both (docs/deviations.md). Without a prior
    there is neither, as in Grounding DINO.

    Args:
        prior: initial score; None: neither scale nor bias.
        width: D of prompts that have a bias each, linear in their vectors; None: they have none.
    """

    def __init__(self, prior: float | None, width: int | None = None) -> None:
        super().__init__()
        self.bias = None if prior is None else nn.Parameter(torch.tensor(-math.log(1 / prior - 1)))
        self.of_prompt = None if width is None else nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, prompts: PromptTokens) -> Tensor:
        """(B, Q, D) -> (B, Q, T)."""
        full = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            similarity = x.to(full) @ prompts.embed.to(full).transpose(1, 2)
            if self.of_prompt is not None:
                own = prompts.embed.to(full) @ self.of_prompt.to(full)  # (B or 1, T)
                similarity = similarity + own[:, None]
        return similarity if self.bias is None else similarity / math.sqrt(x.shape[-1]) + self.bias


class QuerySelection(nn.Module):
    """Turns the image tokens most similar to any prompt into queries (Grounding DINO section 3.2).

    The chosen tokens give the queries' boxes; their content is learned (T-Rex issue 82).
    """

    def __init__(
        self, width: int, num_queries: int, anchor_size: float, prior: float | None, *, prompt_bias: bool = False
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.anchor_size = anchor_size
        self.project = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.head = SimilarityHead(prior, width if prompt_bias else None)
        self.box_head = BoxHead(width)
        self.content = nn.Parameter(torch.randn(num_queries, width))

    def forward(self, features: FeatureMaps, prompts: PromptTokens) -> tuple[Tensor, Detections]:
        """Choose Q tokens.

        Returns:
            Content of the queries (B, Q, D) and the proposals (K = 1), whose boxes start the queries.

        Raises:
            InputError: the image has fewer tokens than there are queries.
        """
        if features.tokens.shape[1] < self.num_queries:
            raise InputError(
                f"model.num_queries={self.num_queries} is more than the {features.tokens.shape[1]} tokens of an image "
                f"with levels {features.shapes}: lower it, or raise data.size"
            )
        boxes, usable = anchors(features.shapes, features.valid, features.valid_ratios, self.anchor_size)
        # The tokens that are not chosen have no gradient, so nothing of them need be kept.
        with torch.no_grad(), _without_autocast_cache(features.tokens.device.type):
            logits = self.head(self._memory(features.tokens, usable), prompts)  # (B, S, T)
            best = logits.masked_fill(~prompts.valid[:, None], -torch.inf).amax(-1)
            chosen = best.masked_fill(~usable, -torch.inf).topk(self.num_queries).indices  # (B, Q)
        memory = self._memory(_taken(features.tokens, chosen), usable.gather(1, chosen))
        proposals = Detections(self.head(memory, prompts)[None], self.box_head(memory, _taken(boxes, chosen))[None])
        return self.content.expand(len(memory), -1, -1), proposals

    def _memory(self, tokens: Tensor, usable: Tensor) -> Tensor:
        return self.norm(self.project(tokens.masked_fill(~usable[..., None], 0)))


def _without_autocast_cache(device: str) -> torch.autocast:
    """Autocast as it is; but weights cast within are not used after it, where older PyTorch would give no gradient."""
    return torch.autocast(
        device, torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device), cache_enabled=False
    )


def _taken(x: Tensor, chosen: Tensor) -> Tensor:
    """Rows `chosen` (B, Q) of x (B, S, n): (B, Q, n). `gather` would keep all of x for its gradient."""
    return x[torch.arange(len(x), device=x.device)[:, None], chosen]
