"""Phrases to rows of tokens, and what the text graph makes of these to prompt tokens, without PyTorch.

C phrases, R rows of N tokens at the most, T prompt tokens, D width.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trex2_lightning.errors import InputError
from trex2_lightning.inference.exported import ExportedText


class TokenArrays(NamedTuple):
    """`PromptTokens` that are all valid, as the graphs take them."""

    embed: NDArray[np.float32]  # (1, T, D)
    category: NDArray[np.int64]  # (T,), -1 for a separator
    attend: NDArray[np.bool_]  # (T, T)
    position: NDArray[np.int64]  # (T,)


def phrase_rows(phrases: Sequence[str], tokenizer: Tokenizer, text: ExportedText) -> list[list[int]]:
    """What the text graph reads: a row for each phrase, between those that stand around all of them.

    Raises:
        InputError: a phrase is empty, has no token, or more than are read.
    """
    rows = []
    for phrase in phrases:
        if not phrase.strip():
            raise InputError("a phrase is empty: every prompt needs at least one word")
        told = cleaned(phrase) if text.reads == "clip" else phrase
        tokens = tokenizer.encode(told, add_special_tokens=False).ids
        if not tokens and text.reads == "bert":
            raise InputError(f"the phrase '{phrase[:60]}' has no word that BERT knows: write it in letters")
        if len(tokens) + 2 > text.context_length:
            raise InputError(
                f"the phrase '{phrase[:60]}' has {len(tokens) + 2} tokens, start and end included, but the text "
                f"encoder reads {text.context_length}: shorten it"
            )
        rows.append([*text.before, *tokens, *text.after])
    return [*text.around[:1], *rows, *text.around[1:]]


def cleaned(phrase: str) -> str:
    """As CLIP's tokenizer reads it: mended, with single spaces, in lower case.

    Raises:
        InputError: it has letters beyond ASCII, which only the package ftfy mends as CLIP does, and that is missing.
    """
    if not (phrase.isascii() and phrase.isprintable() and "&" not in phrase):
        try:
            import ftfy
        except ImportError:
            raise InputError(
                f"the phrase '{phrase[:60]}' is not plain ASCII: pip install ftfy, or write it so"
            ) from None
        phrase = html.unescape(html.unescape(ftfy.fix_text(phrase)))
    return " ".join(phrase.split()).lower()


def padded(rows: Sequence[Sequence[int]]) -> dict[str, NDArray[Any]]:
    """Inputs of the text graph: `tokens` (R, N) and `lengths` (R,)."""
    lengths = np.array([len(row) for row in rows], np.int64)
    tokens = np.zeros((len(rows), lengths.max()), np.int64)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    return {"tokens": tokens, "lengths": lengths}


def of_vectors(vectors: NDArray[np.float32]) -> TokenArrays:
    """One token for each of C vectors (C, D); as `ops.prompt_tokens.from_vectors`."""
    number = np.arange(len(vectors))
    return TokenArrays(vectors[None], number, np.eye(len(vectors), dtype=bool), np.zeros_like(number))


def of_words(states: NDArray[np.float32], lengths: NDArray[np.int64]) -> TokenArrays:
    """The tokens (R, N, D) of all rows one behind the other; as `ops.prompt_tokens.from_words`."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(row)) - np.repeat(lengths.cumsum() - lengths, lengths)
    category = np.where(position == lengths[row] - 1, -1, (np.cumsum(lengths > 1) - 1)[row])
    return TokenArrays(states[row, position][None], category, row[:, None] == row, position)


def joined(one: TokenArrays, other: TokenArrays) -> TokenArrays:
    """The tokens of both, which do not see one another's."""
    size = len(one.category)
    attend = np.zeros((size + len(other.category),) * 2, bool)
    attend[:size, :size], attend[size:, size:] = one.attend, other.attend
    return TokenArrays(
        np.concatenate([one.embed, other.embed], 1),
        np.concatenate([one.category, other.category]),
        attend,
        np.concatenate([one.position, other.position]),
    )


def renamed(tokens: TokenArrays, numbers: NDArray[np.int64]) -> TokenArrays:
    """The same tokens, of categories that are called `numbers` (C,)."""
    return tokens._replace(category=np.where(tokens.category >= 0, numbers[tokens.category], -1))


def taken(tokens: TokenArrays, index: NDArray[np.int64]) -> TokenArrays:
    """Those at some places."""
    return TokenArrays(
        tokens.embed[:, index],
        tokens.category[index],
        tokens.attend[np.ix_(index, index)],
        tokens.position[index],
    )


def in_parts(tokens: TokenArrays, limit: int | None) -> list[NDArray[np.int64]]:
    """The places of at most `limit` tokens of whole categories, part by part; as `ops.prompt_tokens.parts`."""
    if limit is None or len(tokens.category) <= limit:
        return [np.arange(len(tokens.category))]
    block = tokens.attend.argmax(1)  # the first token that a token sees
    named = np.isin(block, block[tokens.category >= 0])
    room = limit - int((~named).sum())
    owners: list[list[int]] = [[]]
    used = 0
    for start, size in zip(*np.unique(block[named], return_counts=True), strict=True):
        if owners[-1] and used + size > room:
            owners.append([])
            used = 0
        owners[-1].append(start)
        used += size
    return [np.flatnonzero(~named | np.isin(block, owner)) for owner in owners]
