"""The order of the training images: for each data set one stream for text and one per source of visual prompts, which
any rank can enter anywhere.

Position p counts the images that a stream has given since step 0 over all ranks. Which image it is and how it is
augmented follow from p and the run's seed alone, so a run resumes exactly, and W ranks together see the images that one
would see. Which kind of prompt an iteration has, and which set its images come from, follows from the optimizer step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from trex2_lightning.config import ExemplarsConfig, RhythmConfig
from trex2_lightning.data.sampling.mixture import TrainSet
from trex2_lightning.structures import ExemplarKind

PromptKind = ExemplarKind | Literal["text"]  # what the images of a batch are asked with
# Where they come from: as they are, those that share a category with the batch's first, those with phrases of captions,
# or those without names.
ImageSource = Literal["any", "cross_image", "grounding", "nameless"]
VISUAL_STREAMS: dict[ImageSource, int] = {"any": 2, "cross_image": 5, "nameless": 8}


class Sample(NamedTuple):
    """The key of a training example, which depends on nothing else."""

    image: int  # index into the images
    seed: int  # of the augmentation, 63 bits
    kind: PromptKind = "text"
    source: ImageSource = "any"
    number: int = 0  # of the data set


class Turn(NamedTuple):
    """An optimizer step's place in the rhythm."""

    visual: bool
    before: int  # steps of the same kind, set and source before it
    source: ImageSource = "any"
    number: int = 0  # of the data set


def turn(step: int, rhythm: RhythmConfig, sets: Sequence[TrainSet], *, cross_image: float = 0.0) -> Turn:
    """What an optimizer step is made of: `rhythm.visual` visual steps in a row, then `rhythm.text` with text.

    Spread evenly, the sets have their shares of the text and of the visual steps, and `cross_image` is a share of every
    set's visual steps with names.
    """
    cycle, place = divmod(step, rhythm.visual + rhythm.text)
    if place >= rhythm.visual:
        number, before = _deal(cycle * rhythm.text + place - rhythm.visual, [some.text for some in sets])
        return Turn(False, before, "grounding" if sets[number].kind == "grounding" else "any", number)
    number, before = _deal(cycle * rhythm.visual + place, [some.visual for some in sets])
    if sets[number].kind == "nameless":
        return Turn(True, before, "nameless", number)
    chosen, before = _dealt(before, cross_image)
    return Turn(True, before, "cross_image" if chosen else "any", number)


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


class TrainStream(Sampler[list[Sample]]):
    """Batches `start` to `stop` of one rank; slot j of batch m is position (m * world + rank) * batch_size + j.

    m counts the batches of the same kind, set and source, so no stream loses or repeats an image because of another.
    As many positions as the set has images are a new permutation of them. Of a cross-image batch this holds for the
    first image alone, over the images that share a category with another; the rest of the batch follows from the first
    and from m. The length is that of the whole run: Lightning adds the batches done before a restart to those it
    fetches, and compares the sum with the length.

    Args:
        sets: where the images come from.
        batch_size: images per batch.
        seed: of everything.
        rank: whose batches these are, of `world` ranks.
        start: batches before the first.
        stop: batches of the whole run.
        accumulate: batches per optimizer step, which are all of one kind.
        rhythm: of the kinds.
        exemplars: their kinds, and the share of the visual steps with names whose images share categories; the sets
            have `shared` for it.
    """

    def __init__(
        self,
        sets: Sequence[TrainSet],
        batch_size: int,
        seed: int,
        *,
        rank: int,
        world: int,
        start: int,
        stop: int,
        accumulate: int = 1,
        rhythm: RhythmConfig | None = None,
        exemplars: ExemplarsConfig | None = None,
    ) -> None:
        self.sets = sets
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.start = start
        self.stop = stop
        self.accumulate = accumulate
        self.rhythm = rhythm or RhythmConfig()
        self.exemplars = exemplars or ExemplarsConfig()

    def __len__(self) -> int:
        return self.stop

    def __iter__(self) -> Iterator[list[Sample]]:
        for batch in range(self.start, self.stop):
            step, part = divmod(batch, self.accumulate)
            visual, before, source, number = turn(step, self.rhythm, self.sets, cross_image=self.exemplars.cross_image)
            chosen = self.sets[number]
            place = (before * self.accumulate + part) * self.world + self.rank
            positions = range(place * self.batch_size, (place + 1) * self.batch_size)
            stream = _Stream(self.seed, VISUAL_STREAMS[source] if visual else 0, chosen.name)
            kind: PromptKind = self._visual_kind(step) if visual else "text"
            if source == "cross_image":
                images = self._sharing(chosen, place, stream)
            else:
                images = [stream.image(position, len(chosen.images)) for position in positions]
            yield [
                Sample(image, stream.seed(1, position), kind, source, number)
                for image, position in zip(images, positions, strict=True)
            ]

    def _visual_kind(self, step: int) -> ExemplarKind:
        """Drawn for all ranks together: what takes no part in a step gets no gradient on any of them."""
        return "point" if _mix(self.seed, 4, step) < self.exemplars.points * 2**63 else "box"

    def _sharing(self, chosen: TrainSet, place: int, stream: _Stream) -> list[int]:
        assert chosen.shared is not None
        first = int(chosen.shared.images[stream.image(place, len(chosen.shared.images))])
        return chosen.shared.batch(first, self.batch_size, np.random.default_rng(stream.seed(2, place)))


class _Stream(NamedTuple):
    """The random numbers of one stream of a data set."""

    run_seed: int
    number: int
    name: str  # of the set

    def seed(self, use: int, place: int) -> int:
        return _mix(self.run_seed, self.number + use, place, *self.name.encode())

    def image(self, position: int, count: int) -> int:
        """Which of `count` images is at a position."""
        epoch, place = divmod(position, count)
        return int(_permutation(count, self.seed(0, epoch))[place])


def rank_order(num_images: int, batch_size: int, rank: int, world: int) -> list[int]:
    """Which images a rank evaluates: whole batches of those that one process would make, so that padding is the same.

    All ranks have as many batches; where their number does not divide, some are evaluated twice.
    """
    num_batches = -(-num_images // batch_size)
    turns = -(-num_batches // world)
    starts = [(turn * world + rank) % num_batches * batch_size for turn in range(turns)]
    return [image for start in starts for image in range(start, min(start + batch_size, num_images))]


@lru_cache(maxsize=16)  # a batch lies in two epochs at most, unless the data set is tiny; the streams take turns
def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _mix(*entropy: int) -> int:
    """63 bits that look random, whatever regular numbers they come from."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
