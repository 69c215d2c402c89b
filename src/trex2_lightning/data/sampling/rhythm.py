"""What an optimizer step is made of: text or exemplars, of which kind, of which data set its images are, and whether
they are portrait.

All of it follows from the step and the run's seed, and is the same on all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from trex2_lightning.config import ExemplarsConfig, RhythmConfig
from trex2_lightning.data.sampling.mixture import TrainSet
from trex2_lightning.structures import ExemplarKind

PromptKind = ExemplarKind | Literal["text"]  # what the images of a batch are asked with
# Where they come from: as they are, those that share a category with the batch's first, those with phrases of captions,
# or those without names.
ImageSource = Literal["any", "cross_image", "grounding", "nameless"]


class Turn(NamedTuple):
    """An optimizer step's place in the rhythm."""

    visual: bool
    before: int  # steps of the same kind, set, source and orientation before it
    source: ImageSource = "any"
    number: int = 0  # of the data set
    portrait: bool = False  # the set's `portrait` images, else its others; cross-image steps have both


def turn(step: int, rhythm: RhythmConfig, sets: Sequence[TrainSet], *, cross_image: float = 0.0) -> Turn:
    """What an optimizer step is made of: `rhythm.visual` visual steps in a row, then `rhythm.text` with text.

    Spread evenly, the sets have their shares of the text and of the visual steps, `cross_image` is a share of every
    set's visual steps with names, and of the other steps a set's portrait images have the share that they are of all.
    """
    cycle, place = divmod(step, rhythm.visual + rhythm.text)
    if place >= rhythm.visual:
        number, before = _deal(cycle * rhythm.text + place - rhythm.visual, [some.text for some in sets])
        source: ImageSource = "grounding" if sets[number].kind == "grounding" else "any"
    else:
        number, before = _deal(cycle * rhythm.visual + place, [some.visual for some in sets])
        source = "nameless" if sets[number].kind == "nameless" else "any"
        if source == "any":
            chosen, before = _dealt(before, cross_image)
            if chosen:
                return Turn(True, before, "cross_image", number)
    portrait, before = _dealt(before, sets[number].portrait_share)
    return Turn(place < rhythm.visual, before, source, number, portrait)


def exemplar_kind(step: int, seed: int, shares: ExemplarsConfig) -> ExemplarKind:
    """Drawn for all ranks together: what takes no part in a step gets no gradient on any of them."""
    return "point" if mix(seed, 4, step) < shares.points * 2**63 else "box"


def mix(*entropy: int) -> int:
    """63 bits that look random, whatever regular numbers they come from."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _deal(number: int, weights: Sequence[float]) -> tuple[int, int]:
    """To whom an item is dealt, where all have evenly spread shares, and how many of their own come before it."""
    for last in reversed(range(1, len(weights))):  # each against all before it
        chosen, number = _dealt(number, weights[last] / (sum(weights[: last + 1]) or 1))
        if chosen:
            return last, number
    return 0, number


def _dealt(number: int, share: float) -> tuple[bool, int]:
    """Whether an item is among an evenly spread share of all, and how many of its own side come before it."""
    before = int(number * share)
    chosen = int((number + 1) * share) > before
    return chosen, before if chosen else number - before
