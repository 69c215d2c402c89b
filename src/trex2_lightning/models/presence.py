"""Whether what a prompt asks for is in the image at all: one logit per category, beside those of the queries.

After SAM 3's presence token (arXiv 2511.16719), which decouples recognition from localisation; there it is one for the
one phrase that an image is asked for, here one for each category (docs/deviations.md).
B images, T prompt tokens, S image tokens, Q proposals, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trex2_lightning.layers.attention import Attention
from trex2_lightning.layers.mlp import MLP
from trex2_lightning.structures import FeatureMaps, PromptTokens


class PresenceHead(nn.Module):
    """Each category's vector reads the image, and what it has read is compared with it.

    The best proposal of the category says most of it, so its logit goes in at half its weight, and the rest starts at
    0: untrained, a score is multiplied by about the square root of its category's best proposal score.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.compare = MLP(3 * width, width, 1, 2)
        self.proposal = nn.Parameter(torch.tensor(0.5))
        for parameter in self.compare[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: FeatureMaps, prompts: PromptTokens, proposals: Tensor) -> Tensor:
        """Logits of presence.

        Args:
            features: of the image, as the proposals were chosen from them.
            prompts: as the proposals were chosen by them.
            proposals: their logits (B, Q, T).

        Returns:
            (B, T), for each token that of its category, in float32 under autocast too; of no meaning for separators.
        """
        same = (prompts.category == prompts.category[:, None]).to(prompts.embed.dtype)
        mean = same / same.sum(-1, keepdim=True)  # (T, T), of the tokens of a category
        vectors = (mean @ prompts.embed).expand(len(features.tokens), -1, -1)  # (B, T, D)
        read = self.norm(self.attention(vectors, features.tokens, features.tokens, features.valid[:, None]))
        compared = self.compare(torch.cat([vectors, read, vectors * read], -1))[..., 0]
        with torch.autocast(proposals.device.type, enabled=False):
            best = (proposals.detach() @ mean.to(proposals.dtype).T).amax(1)
        return compared.to(best.dtype) + self.proposal * best
