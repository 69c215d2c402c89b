"""BERT and its WordPiece tokens (arXiv 1810.04805), the text encoder of Grounding DINO.

R rows of tokens, L tokens of the longest, W width.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor, nn

from trex2_lightning.errors import InputError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", ".")
_LONGEST = 32  # bytes of a word piece


class Bert(nn.Module):
    """The encoder, without the pooling layer."""

    def __init__(self, width: int, layers: int, heads: int, context_length: int, vocabulary: int) -> None:
        super().__init__()
        self.heads = heads
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        self.positions = nn.Embedding(context_length, width)
        self.segments = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(0.1)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.1, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        for embedding in (self.words, self.positions, self.segments):
            nn.init.normal_(embedding.weight, std=0.02)

    @property
    def width(self) -> int:
        return self.words.embedding_dim

    @property
    def context_length(self) -> int:
        return self.positions.num_embeddings

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Encode every row by itself.

        Args:
            tokens: (R, L) int64.
            lengths: (R,) tokens of each row.

        Returns:
            (R, L, W), of no meaning behind a row's length.
        """
        place = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.words(tokens) + self.positions(place) + self.segments.weight[0]
        return self.encoder(self.dropout(self.norm(x)), src_key_padding_mask=place >= lengths[:, None])


class WordPieces(nn.Module):
    """Text to BERT's tokens. The vocabulary is part of the state dict, so that a checkpoint needs no other file.

    Args:
        size: number of word pieces.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.pieces: list[str] = []
        self._ids: dict[str, int] = {}
        self._known: dict[str, list[int]] = {}  # a training asks for the same names again and again

    def read(self, pieces: list[str]) -> None:
        """Take a vocabulary, in the order of its numbers.

        Raises:
            InputError: not of the configured size, without the special tokens, or with an overlong piece.
        """
        missing = [piece for piece in SPECIAL if piece not in pieces]
        if len(pieces) != self.size or missing:
            raise InputError(
                f"the vocabulary has {len(pieces)} word pieces where {self.size} are configured"
                f"{', and lacks ' + ' '.join(missing) if missing else ''}: take the file that belongs to the BERT"
            )
        if max(len(piece.encode()) for piece in pieces) > _LONGEST:
            raise InputError(f"a piece of the vocabulary is longer than {_LONGEST} bytes: it is not a BERT's")
        self.pieces = pieces
        self._known = {}
        self._ids = {piece: number for number, piece in enumerate(pieces)}
        self._tokenizer = Tokenizer(WordPiece(self._ids, unk_token="[UNK]"))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    def forward(self, text: str) -> list[int]:
        """The tokens of a text, nothing around them.

        Raises:
            InputError: no vocabulary was read.
        """
        self._require_vocabulary()
        if text not in self._known:
            if len(self._known) >= 100_000:
                self._known.clear()
            self._known[text] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return self._known[text]

    @property
    def library(self) -> Tokenizer:
        """What makes the tokens, for a file of its own.

        Raises:
            InputError: no vocabulary was read.
        """
        self._require_vocabulary()
        return self._tokenizer

    def special(self, piece: str) -> int:
        """The number of one of `SPECIAL`."""
        self._require_vocabulary()
        return self._ids[piece]

    def get_extra_state(self) -> Tensor:
        """The pieces as (size, 32) uint8, UTF-8 behind which zeros stand; all zeros without a vocabulary."""
        table = torch.zeros(self.size, _LONGEST, dtype=torch.uint8)
        for row, piece in zip(table, self.pieces, strict=False):
            encoded = torch.tensor(list(piece.encode()), dtype=torch.uint8)
            row[: len(encoded)] = encoded
        return table

    def set_extra_state(self, state: Tensor) -> None:
        if state.any():
            self.read([bytes(row).rstrip(b"\0").decode() for row in state.tolist()])

    def _require_vocabulary(self) -> None:
        if not self.pieces:
            raise InputError(
                "BERT has no vocabulary: give model.text.pretrained or model.init_from, a folder or repository with "
                "vocab.txt or tokenizer.json"
            )
