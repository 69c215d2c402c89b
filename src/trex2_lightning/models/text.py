"""Phrases to prompt tokens, by a CLIP text tower (T-Rex2 section 3) or a BERT (Grounding DINO section 3).

A phrase becomes one vector, or every word of it its own; no other phrase has a part in it. There is no prompt template.

C phrases, R rows of tokens, L tokens of the longest, W width of the tower, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Literal

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from trex2_lightning.config import TextConfig
from trex2_lightning.errors import InputError, reason_of
from trex2_lightning.models.bert import Bert, WordPieces
from trex2_lightning.ops.prompt_tokens import from_vectors, from_words
from trex2_lightning.structures import LONGEST_PHRASE, PromptTokens


class PhraseError(InputError):
    """A phrase cannot be encoded."""


class TextEncoder(nn.Module, ABC):
    """C phrases -> PromptTokens of batch size 1, trained with the rest of the detector."""

    without_word = 0  # tokens at the start of a row that see nothing, so that they are no word

    def __init__(
        self, tower: nn.Module, tower_width: int, width: int, granularity: Literal["phrase", "word"], norm: bool
    ) -> None:
        super().__init__()
        self.tower = tower
        self.projection = nn.Linear(tower_width, width)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.granularity = granularity

    def forward(self, phrases: tuple[str, ...]) -> PromptTokens:
        """Encode phrases.

        Raises:
            PhraseError: a phrase is empty or longer than the tower's context.
        """
        _require_words(phrases)
        rows, device = self.rows(phrases), self.projection.weight.device
        lengths = [len(row) for row in rows]
        tokens = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device, non_blocking=True)
        found = self.encode(tokens, torch.tensor(lengths).to(device, non_blocking=True))
        if self.granularity == "phrase":
            return from_vectors(found[None])
        return from_words(found, [length - self.without_word for length in lengths])

    def encode(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """What `forward` makes of token ids (R, L) int64, of which (R,) in each row are real, with zeros behind them.

        Returns:
            A vector for each row (R, D); or for each of its words and what closes it, (R, L - `without_word`, D), of no
            meaning behind its length.
        """
        return self.norm(self.projection(self.read(tokens, lengths)))

    def check(self, phrases: Sequence[str]) -> None:
        """Whether all phrases can be encoded; a million take a second or two, as short ones need no look.

        Raises:
            PhraseError: as `forward`, of the first phrase.
        """
        _require_words(phrases)
        for phrase in phrases:
            if len(phrase) > self.context_length - 2 or not phrase.isascii():  # no ASCII character is two tokens
                self.tokens(phrase)

    @property
    @abstractmethod
    def context_length(self) -> int:
        """Tokens of a phrase that the tower reads, start and end included."""

    @abstractmethod
    def tokens(self, phrase: str) -> list[int]:
        """The tower's tokens of a phrase; raises PhraseError."""

    @abstractmethod
    def rows(self, phrases: tuple[str, ...]) -> list[list[int]]:
        """What the tower reads of C phrases: a row for each, or as well those that stand around all words."""

    @abstractmethod
    def read(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """As `encode`, of the tower's width."""

    def _require_room(self, phrase: str, length: int) -> None:
        if length > self.context_length:
            raise PhraseError(
                f"the phrase '{phrase[:60]}' has {length} tokens, start and end included, but the text "
                f"encoder reads {self.context_length}: shorten it"
            )


class ClipEncoder(TextEncoder):
    """A CLIP text tower. The phrase's vector is the output at the end-of-text token, which the paper calls [CLS]."""

    tower: TextTransformer
    without_word = 1  # start-of-text

    def __init__(self, config: TextConfig, width: int, granularity: Literal["phrase", "word"]) -> None:
        tower = text_tower(config)
        super().__init__(tower, tower.output_dim, width, granularity, config.norm)
        tower.attn_mask = None  # made for the length at hand; as a buffer its infinities average to NaN under EMA

    @property
    def context_length(self) -> int:
        return self.tower.context_length

    def tokens(self, phrase: str) -> list[int]:
        """Start and end included."""
        tokens = _clip_tokens(phrase)
        self._require_room(phrase, len(tokens))
        return tokens

    def rows(self, phrases: tuple[str, ...]) -> list[list[int]]:
        """The causal tower needs no padding beyond the longest phrase."""
        return [self.tokens(phrase) for phrase in phrases]

    def read(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The tower is causal: a word knows those before it, and end-of-text, which closes the name, all of them."""
        tower, length = self.tower, tokens.shape[1]
        x = tower.token_embedding(tokens) + tower.positional_embedding[:length]
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        x = tower.ln_final(tower.transformer(x, attn_mask=causal))  # (C, L, W)
        if self.granularity == "word":
            return x[:, 1:] @ tower.text_projection
        return x[torch.arange(len(x), device=x.device), lengths - 1] @ tower.text_projection


class BertEncoder(TextEncoder):
    """A BERT. The phrase's vector is the output at [CLS].

    Words are those of Grounding DINO's sentence "[CLS] red star . ring . [SEP]". There a name sees nothing but itself
    and its dot, and its positions start anew, so encoding the names as rows of a batch is the same, in less time and
    for any number of names.
    """

    tower: Bert

    def __init__(self, config: TextConfig, width: int, granularity: Literal["phrase", "word"]) -> None:
        sizes = (config.width, config.layers, config.heads, config.context_length, config.vocabulary)
        tower = Bert(*((768, 12, 12, 512, 30522) if config.name == "bert-base-uncased" else sizes))
        super().__init__(tower, tower.width, width, granularity, config.norm)
        self.tokenizer = WordPieces(tower.words.num_embeddings)

    def rows(self, phrases: tuple[str, ...]) -> list[list[int]]:
        names = [self.tokens(phrase) for phrase in phrases]
        start, end, dot = (self.tokenizer.special(piece) for piece in ("[CLS]", "[SEP]", "."))
        if self.granularity == "phrase":
            return [[start, *name, end] for name in names]
        return [[start], *([*name, dot] for name in names), [end]]

    def read(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        states = self.tower(tokens, lengths)
        return states[:, 0] if self.granularity == "phrase" else states

    @property
    def context_length(self) -> int:
        return self.tower.context_length

    def tokens(self, phrase: str) -> list[int]:
        """Without [CLS] and [SEP]."""
        pieces = self.tokenizer(phrase)
        if not pieces:
            raise PhraseError(f"the phrase '{phrase[:60]}' has no word that BERT knows: write it in letters")
        self._require_room(phrase, len(pieces) + 2)
        return pieces


def _require_words(phrases: Iterable[str]) -> None:
    for phrase in phrases:
        if not phrase.strip():
            raise PhraseError("a phrase is empty: every prompt needs at least one word")
        if len(phrase) > LONGEST_PHRASE:
            raise PhraseError(f"the phrase '{phrase[:60]}' has {len(phrase):,} characters: shorten it")


def text_tower(config: TextConfig) -> TextTransformer:
    """The text side of an open_clip model, pretrained or not, or a small one of the given sizes."""
    if config.name == "custom":
        return TextTransformer(
            config.context_length, width=config.width, heads=config.heads, layers=config.layers, output_dim=config.width
        )
    try:
        device = torch.get_default_device()  # open_clip would move what is only outlined (meta) to the CPU
        clip = open_clip.create_model(config.name, config.pretrained or None, device=device, force_custom_text=True)
    except Exception as error:  # open_clip, the hub and the network raise anything
        raise InputError(
            f"model.text.name={config.name}, model.text.pretrained={config.pretrained} cannot be had "
            f"({reason_of(error)}); give a name and tag of open_clip.list_pretrained(), or without a network "
            "model.text.pretrained=FILE"
        ) from error
    tower = clip.text
    if getattr(tower, "pool_type", "") != "argmax" or tower.attn_mask is None:
        raise InputError(f"model.text.name={config.name} is not a CLIP text tower with a causal mask: take ViT-B-32")
    return tower


_clip_tokenizer = cache(SimpleTokenizer)


@lru_cache(maxsize=100_000)  # a training asks for the same names again and again
def _clip_tokens(phrase: str) -> list[int]:
    tokenizer = _clip_tokenizer()
    return [tokenizer.sot_token_id, *tokenizer.encode(phrase), tokenizer.eot_token_id]
