"""Controls: phrases that stand in the names' place, and references in others', should find nothing of them."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection

import torch

from trex2_lightning.data.sampling.foreign import foreign_in_place
from trex2_lightning.ops.prompt_tokens import renumbered, take
from trex2_lightning.structures import PromptTokens

log = logging.getLogger(__name__)


def wrong_phrases(protocols: Collection[str], names: tuple[str, ...], seed: int) -> dict[str, tuple[str, ...]]:
    """For each of the text controls among the protocols its phrases; the log tells of those that cannot be.

    - `random_phrases`: the names in another order, which a set of one name does not have.
    - `foreign_phrases`: names of things that are not there, and that training never draws; a set of thousands of names
      may be near all of them.

    Args:
        protocols: whatever is asked with.
        names: of a data set.
        seed: of both draws.
    """
    phrases: dict[str, tuple[str, ...]] = {}
    if "random_phrases" in protocols:
        if len(names) > 1:
            phrases["random_phrases"] = permuted(names, seed)
        else:
            log.warning("random_phrases left out: one name has no other to change places with; ask for foreign_phrases")
    if "foreign_phrases" in protocols:
        if foreign := foreign_in_place(names, seed):
            phrases["foreign_phrases"] = foreign
        else:
            log.warning("foreign_phrases left out: every foreign name is near one of the data set's")
    return phrases


def swapped_references(references: PromptTokens, seed: int) -> PromptTokens | None:
    """The same with each category's place taken by another; None, which the log tells, where there is no other.

    Args:
        references: of batch size N, with one vector per category, in their order.
        seed: of the draw.
    """
    size = references.embed.shape[1]
    if size < 2:
        log.warning("random_references left out: one category has no other to change places with")
        return None
    order = torch.tensor(no_own_place(size, seed))
    return take(renumbered(references, order.argsort()), order)


def permuted(names: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """The names in another order, none at its own place: at least two."""
    return tuple(names[place] for place in no_own_place(len(names), seed))


def no_own_place(count: int, seed: int) -> list[int]:
    """An order of `count` things, at least two, in which none is at its own place."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    shifted = dict(zip(order, order[1:] + order[:1], strict=True))
    return [shifted[place] for place in range(count)]
