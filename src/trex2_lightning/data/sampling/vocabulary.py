"""The batch vocabulary: which phrases a training batch is asked for (T-Rex2, section 3.3).

Positives are the categories of the batch; negatives are drawn from the rest of the data set's names, from a dictionary
of frequent phrases, or from both, and where that makes few phrases, foreign names come too (`foreign`). The paper does
not give their number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trex2_lightning.config import NegativesConfig
from trex2_lightning.errors import InputError


class Vocabulary(NamedTuple):
    """C phrases and what the images' labels are called in terms of them."""

    phrases: tuple[str, ...]  # C
    labels: tuple[Tensor, ...]  # B x (n,) int64, index into `phrases`


class ForeignNames(NamedTuple):
    """What nobody says is in a set's pictures, and how much of it a batch is asked for."""

    names: tuple[str, ...] = ()
    size: int = 0  # phrases that a text batch is filled up to; one that has as many gets none


NO_FOREIGN = ForeignNames()


Nearest = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]  # of phrases, those nearest to each


class NearNames(NamedTuple):
    """Which phrases of a set's pool are hard to tell apart."""

    nearest: Mapping[str, Sequence[str]]  # by phrase, the nearest first
    share: float  # of the negatives that are drawn out of the nearest of the batch's phrases


def batch_vocabulary(
    labels: Sequence[Tensor],
    names: Sequence[str],
    pool: Sequence[str],
    count: int,
    generator: torch.Generator,
    foreign: ForeignNames = NO_FOREIGN,
    near: NearNames | None = None,
) -> Vocabulary:
    """The categories present in any image, `count` negatives from `pool` and foreign names, in random order.

    Two phrases that differ only in case or outer spaces count as one, so that a negative is never a positive. The
    order is random over both kinds, so that a phrase's position says nothing. A batch without boxes gets at least one
    negative: a detector needs something to look for.

    Args:
        labels: per image (n,) int64, index into `names`.
        names: the data set's category names.
        pool: phrases to draw negatives from without replacement; may contain positives.
        count: negatives to draw, fewer where the pool has fewer.
        generator: the only source of randomness.
        foreign: what a vocabulary of fewer phrases is filled up with.
        near: what a share of the negatives is drawn from; None: none is.
    """
    present = torch.cat([*labels]).unique()
    phrases = [names[category] for category in present.tolist()]
    phrases += drawn_negatives(phrases, pool, count if phrases else max(count, 1), generator, near)
    phrases += drawn_negatives(phrases, foreign.names, foreign.size - len(phrases), generator)
    order = torch.randperm(len(phrases), generator=generator)
    position = torch.full((len(names),), -1)
    position[present] = order.argsort()[: len(present)]
    return Vocabulary(tuple(phrases[i] for i in order.tolist()), tuple(position[image] for image in labels))


def drawn_negatives(
    phrases: Sequence[str],
    pool: Sequence[str],
    count: int,
    generator: torch.Generator,
    near: NearNames | None = None,
) -> list[str]:
    """Up to `count` phrases of `pool` that are none of `phrases`, as `batch_vocabulary` draws them."""
    if near is not None:
        known = set(pool)  # some of what the nearest are of
        candidates = (name for phrase in phrases for name in near.nearest.get(phrase, ()))
        nearest = [*dict.fromkeys(name for name in candidates if name in known)]
        hard = drawn_negatives(phrases, nearest, round(near.share * count), generator)
        return hard + drawn_negatives([*phrases, *hard], pool, count - len(hard), generator)
    taken = {_key(phrase) for phrase in phrases}
    negatives: list[str] = []
    for candidate in torch.randperm(len(pool), generator=generator).tolist():
        if len(negatives) >= count:
            break
        if _key(pool[candidate]) not in taken:
            taken.add(_key(pool[candidate]))
            negatives.append(pool[candidate])
    return negatives


def negative_pool(config: NegativesConfig, names: Sequence[str]) -> tuple[str, ...]:
    """The phrases that `data.negatives` draws from, for a data set with these category names."""
    dataset = tuple(names) if config.source != "dictionary" else ()
    dictionary = read_dictionary(Path(config.dictionary)) if config.source != "dataset" else ()
    return dataset + dictionary


def read_dictionary(path: Path) -> tuple[str, ...]:
    """The phrases of a text file, one a line; blank lines are ignored.

    Raises:
        InputError: the file is missing, not text, or has no phrase.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text; set data.negatives.dictionary= to a text file") from error
    phrases = tuple(line.strip() for line in lines if line.strip())
    if not phrases:
        raise InputError(f"{path}: has no phrase; write one a line, or set data.negatives.source=dataset")
    return phrases


def _key(phrase: str) -> str:
    return phrase.strip().casefold()
