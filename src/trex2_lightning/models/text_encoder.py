"""Phrases to vectors by a CLIP text tower (T-Rex2 section 3; open_clip).

Each phrase goes through the tower alone and becomes one vector: the pooled output at the end-of-text token,
which the paper calls [CLS]. There is no prompt template.
"""

from __future__ import annotations

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from trex2_lightning.config import TextConfig
from trex2_lightning.errors import InputError


class PhraseError(InputError):
    """A phrase cannot be encoded."""


class PhraseEncoder(nn.Module):
    """C phrases -> (C, D), trained with the rest of the detector."""

    def __init__(self, config: TextConfig, width: int) -> None:
        super().__init__()
        self.tower = text_tower(config)
        self.tokenizer = SimpleTokenizer(context_length=self.tower.context_length)
        self.projection = nn.Linear(self.tower.output_dim, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, phrases: tuple[str, ...]) -> Tensor:
        """Encode phrases.

        Raises:
            PhraseError: a phrase is empty or longer than the tower's context.
        """
        return self.norm(self.projection(self._pooled(self.tokenize(phrases))))

    def tokenize(self, phrases: tuple[str, ...]) -> Tensor:
        """Token ids (C, longest phrase): the causal tower needs no padding beyond the longest phrase."""
        limit = self.tower.context_length
        lengths = []
        for phrase in phrases:
            if not phrase.strip():
                raise PhraseError("a phrase is empty: every prompt needs at least one word")
            lengths.append(len(self.tokenizer.encode(phrase)) + 2)
            if lengths[-1] > limit:
                raise PhraseError(
                    f"the phrase '{phrase[:60]}' has {lengths[-1]} tokens, start and end included, but the text "
                    f"encoder reads {limit}: shorten it"
                )
        return self.tokenizer(list(phrases))[:, : max(lengths)].to(self.projection.weight.device)

    def _pooled(self, tokens: Tensor) -> Tensor:
        tower, length = self.tower, tokens.shape[1]
        x = tower.token_embedding(tokens) + tower.positional_embedding[:length]
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        end_of_text = tokens.argmax(-1)  # the largest id of the vocabulary
        return x[torch.arange(len(x), device=x.device), end_of_text] @ tower.text_projection


def text_tower(config: TextConfig) -> TextTransformer:
    """The text side of an open_clip model, pretrained or not, or a small one of the given sizes."""
    if config.name == "custom":
        return TextTransformer(
            config.context_length, width=config.width, heads=config.heads, layers=config.layers, output_dim=config.width
        )
    try:
        clip = open_clip.create_model(config.name, config.pretrained or None, force_custom_text=True)
    except RuntimeError as error:
        raise InputError(
            f"model.text.name={config.name}, model.text.pretrained={config.pretrained}: {error}"
        ) from error
    tower = clip.text
    if getattr(tower, "pool_type", "") != "argmax" or tower.attn_mask is None:
        raise InputError(f"model.text.name={config.name} is not a CLIP text tower with a causal mask: take ViT-B-32")
    return tower
