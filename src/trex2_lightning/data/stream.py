"""The order of the training images: one stream for text and one per source of visual prompts, which any rank can enter
anywhere.

Position p counts the images that a stream has given since step 0 over all ranks. Which image it is and how it is
augmented follow from p and the run's seed alone, so a run resumes exactly, and W ranks together see the images that one
would see. Which kind of prompt an iteration has, and where its images come from, follows from the optimizer step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from trex2_lightning.config import RhythmConfig
from trex2_lightning.data.sharing import SharedCategories

Kind = Literal["text", "boxes", "points"]  # what the images of a batch are asked with; never mixed (issue 85)
# Where they come from: as they are, those that share a category with the batch's first, or those without names.
Source = Literal["any", "cross_image", "nameless"]
VISUAL_STREAMS: dict[Source, int] = {"any": 2, "cross_image": 5, "nameless": 8}


class Sample(NamedTuple):
    """The key of a training example, which depends on nothing else."""

    image: int  # index into the images
    seed: int  # of the augmentation, 63 bits
    kind: Kind = "text"
    source: Source = "any"


class Turn(NamedTuple):
    """An optimizer step's place in the rhythm."""

    visual: bool
    before: int  # steps of the same kind and source before it
    source: Source = "any"


def turn(step: int, rhythm: RhythmConfig, *, cross_image: float = 0.0, nameless: float = 0.0) -> Turn:
    """Whether an optimizer step has visual prompts: `rhythm.visual` in a row, then `rhythm.text` with text.

    Spread evenly, a share `nameless` of the visual steps, and of the others a share `cross_image`, have that source.
    """
    cycle, place = divmod(step, rhythm.visual + rhythm.text)
    if place >= rhythm.visual:
        return Turn(False, cycle * rhythm.text + place - rhythm.visual)
    chosen, before = _dealt(cycle * rhythm.visual + place, nameless)
    if chosen:
        return Turn(True, before, "nameless")
    chosen, before = _dealt(before, cross_image)
    return Turn(True, before, "cross_image" if chosen else "any")


def _dealt(number: int, share: float) -> tuple[bool, int]:
    """Whether an item is among an evenly spread share of all, and how many of its own side come before it."""
    before = int(number * share)
    chosen = int((number + 1) * share) > before
    return chosen, before if chosen else number - before


class TrainStream(Sampler[list[Sample]]):
    """Batches `start` to `stop` of one rank; slot j of batch m is position (m * world + rank) * batch_size + j.

    m counts the batches of the same kind and source, so no stream loses or repeats an image because of another. Every
    `num_images` positions are a new permutation of the images. Of a cross-image batch this holds for the first image
    alone, over the images that share a category with another; the rest of the batch follows from the first and from m.
    The length is that of the whole run: Lightning adds the batches done before a restart to those it fetches, and
    compares the sum with the length.

    Args:
        num_images: in the data set.
        batch_size: images per batch.
        seed: of everything.
        rank: whose batches these are, of `world` ranks.
        start: batches before the first.
        stop: batches of the whole run.
        accumulate: batches per optimizer step, which are all of one kind.
        rhythm: of the kinds.
        points: share of the visual steps that are asked with points.
        cross_image: share of the visual steps with names that have images of `shared`.
        shared: the categories of the images; needed for cross-image steps.
        nameless: share of the visual steps that have nameless images.
        num_nameless: nameless images.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        *,
        rank: int,
        world: int,
        start: int,
        stop: int,
        accumulate: int = 1,
        rhythm: RhythmConfig | None = None,
        points: float = 0.5,
        cross_image: float = 0.0,
        shared: SharedCategories | None = None,
        nameless: float = 0.0,
        num_nameless: int = 0,
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.start = start
        self.stop = stop
        self.accumulate = accumulate
        self.rhythm = rhythm or RhythmConfig()
        self.points = points
        self.cross_image = cross_image
        self.shared = shared
        self.nameless = nameless
        self.num_nameless = num_nameless

    def __len__(self) -> int:
        return self.stop

    def __iter__(self) -> Iterator[list[Sample]]:
        for batch in range(self.start, self.stop):
            step, part = divmod(batch, self.accumulate)
            visual, before, source = turn(step, self.rhythm, cross_image=self.cross_image, nameless=self.nameless)
            number = (before * self.accumulate + part) * self.world + self.rank
            stream = VISUAL_STREAMS[source] if visual else 0
            positions = range(number * self.batch_size, (number + 1) * self.batch_size)
            kind = self._visual_kind(step) if visual else "text"
            yield [
                Sample(image, _mix(self.seed, stream + 1, position), kind, source)
                for image, position in zip(self._images(number, positions, source, stream), positions, strict=True)
            ]

    def _visual_kind(self, step: int) -> Kind:
        """Drawn for all ranks together: what takes no part in a step gets no gradient on any of them."""
        return "points" if _mix(self.seed, 4, step) < self.points * 2**63 else "boxes"

    def _images(self, number: int, positions: range, source: Source, stream: int) -> list[int]:
        if source != "cross_image":
            count = self.num_nameless if source == "nameless" else self.num_images
            return [self._in_order(position, count, stream) for position in positions]
        assert self.shared is not None
        first = int(self.shared.images[self._in_order(number, len(self.shared.images), stream)])
        rng = np.random.default_rng(_mix(self.seed, stream + 2, number))
        return self.shared.batch(first, self.batch_size, rng)

    def _in_order(self, position: int, count: int, stream: int) -> int:
        epoch, place = divmod(position, count)
        return int(_permutation(count, _mix(self.seed, stream, epoch))[place])


def rank_order(num_images: int, batch_size: int, rank: int, world: int) -> list[int]:
    """Which images a rank evaluates: whole batches of those that one process would make, so that padding is the same.

    All ranks have as many batches; where their number does not divide, some are evaluated twice.
    """
    num_batches = -(-num_images // batch_size)
    turns = -(-num_batches // world)
    starts = [(turn * world + rank) % num_batches * batch_size for turn in range(turns)]
    return [image for start in starts for image in range(start, min(start + batch_size, num_images))]


@lru_cache(maxsize=8)  # a batch lies in two epochs at most, unless the data set is tiny; four streams take turns
def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _mix(*entropy: int) -> int:
    """63 bits that look random, whatever regular numbers they come from."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
