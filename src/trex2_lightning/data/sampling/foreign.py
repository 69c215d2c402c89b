"""Foreign names: names of things that nobody says are in the pictures, so that a set's few names keep their meaning.

Trained on one category alone, a detector finds it whatever it is asked for. Two lists ship with the package: training
draws from the first alone, and evaluation asks for names of the second alone (protocol `foreign_phrases`). No name of
one is near one of the other, and what stands unmarked in many pictures (tree, chair, shoe) is not in the first.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from trex2_lightning.data.sampling.vocabulary import NO_FOREIGN, ForeignNames, read_dictionary

log = logging.getLogger(__name__)
SHORTEST = 3  # letters of a word that is looked for within longer ones


def foreign_names(names: Sequence[str], num_annotated: int, size: int, key: str) -> ForeignNames:
    """What a set is trained with: the log says so; nothing where it has `size` names or more.

    Args:
        names: all names of the set, also those that are held out.
        num_annotated: how many of them have a box in the training split.
        size: `data.negatives.foreign`.
        key: what names the set, for the log.
    """
    if num_annotated >= size:
        return NO_FOREIGN
    foreign = ForeignNames(far_from(tuple(names), _shipped("training")), size)
    told = "%s: so few names have boxes (%d) that text batches are filled up to %d phrases with some of %d foreign ones"
    rank_zero_only(log.info)(told, key, num_annotated, size, len(foreign.names))
    return foreign


def foreign_in_place(names: Sequence[str], seed: int) -> tuple[str, ...]:
    """For each name a foreign one that training never draws, as the seed has it; empty where all are near.

    Where there are more names than foreign ones these come again.
    """
    pool = list(far_from(tuple(names), _shipped("evaluation")))
    random.Random(f"{seed} foreign").shuffle(pool)
    return tuple(pool[place % len(pool)] for place in range(len(names))) if pool else ()


@lru_cache(maxsize=64)  # a memory bank asks again and again
def far_from(names: tuple[str, ...], candidates: tuple[str, ...]) -> tuple[str, ...]:
    """The candidates that are near none of the names.

    Two names are near if they have a word in common, whatever its case and its number ("Cell", "white blood cells"),
    or if a word of one holds a word of the other, of at least three letters ("bike", "motorbike"). Other words for the
    same thing are not known to be near, nor are irregular plurals, of which the lists have none.
    """
    words = set[str]().union(*map(_forms, names))
    return tuple(name for name in candidates if not any(_alike(own, word) for own in _forms(name) for word in words))


def _alike(one: str, other: str) -> bool:
    return one == other or (min(len(one), len(other)) >= SHORTEST and (one in other or other in one))


@cache
def _forms(name: str) -> frozenset[str]:
    """The words of a name as they are and as singulars, right ones and wrong ones: too many near names cost nothing."""
    forms = set()
    for word in re.findall(r"[^\W_]+", name.casefold()):
        forms.add(word)
        for plural, singular in (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe")):
            if word.endswith(plural):
                forms.add(word.removesuffix(plural) + singular)
    return frozenset(forms)


@cache
def _shipped(half: str) -> tuple[str, ...]:
    return read_dictionary(Path(__file__).with_name(f"foreign_{half}.txt"))
