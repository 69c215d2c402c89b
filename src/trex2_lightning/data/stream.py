"""The order of the training images: one stream per kind of prompt, which any rank can enter anywhere.

Position p counts the images that a stream has given since step 0 over all ranks. Which image it is and how it is
augmented follow from p and the run's seed alone, so a run resumes exactly, and W ranks together see the images that one
would see. Which kind of prompt an iteration has follows from the optimizer step.
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

Kind = Literal["text", "boxes", "points"]  # what the images of a batch are asked with; never mixed (issue 85)


class Sample(NamedTuple):
    """The key of a training example, which depends on nothing else."""

    image: int  # index into the images
    seed: int  # of the augmentation, 63 bits
    kind: Kind = "text"


class Turn(NamedTuple):
    """An optimizer step's place in the rhythm."""

    visual: bool
    before: int  # steps of the same kind before it


def turn(step: int, rhythm: RhythmConfig) -> Turn:
    """Whether an optimizer step has visual prompts: `rhythm.visual` in a row, then `rhythm.text` with text."""
    cycle, place = divmod(step, rhythm.visual + rhythm.text)
    if place < rhythm.visual:
        return Turn(True, cycle * rhythm.visual + place)
    return Turn(False, cycle * rhythm.text + place - rhythm.visual)


class TrainStream(Sampler[list[Sample]]):
    """Batches `start` to `stop` of one rank; slot j of batch m is position (m * world + rank) * batch_size + j.

    m counts the batches of the same kind, text or visual, so neither stream loses or repeats an image because of the
    other. Every `num_images` positions are a new permutation of the images. The length is that of the whole run:
    Lightning adds the batches done before a restart to those it fetches, and compares the sum with the length.

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

    def __len__(self) -> int:
        return self.stop

    def __iter__(self) -> Iterator[list[Sample]]:
        for batch in range(self.start, self.stop):
            step, part = divmod(batch, self.accumulate)
            visual, before = turn(step, self.rhythm)
            first = ((before * self.accumulate + part) * self.world + self.rank) * self.batch_size
            kind = self._visual_kind(step) if visual else "text"
            yield [self._sample(position, kind) for position in range(first, first + self.batch_size)]

    def _visual_kind(self, step: int) -> Kind:
        """Drawn for all ranks together: what takes no part in a step gets no gradient on any of them."""
        return "points" if _mix(self.seed, 4, step) < self.points * 2**63 else "boxes"

    def _sample(self, position: int, kind: Kind) -> Sample:
        stream = 0 if kind == "text" else 2
        epoch, place = divmod(position, self.num_images)
        image = int(_permutation(self.num_images, _mix(self.seed, stream, epoch))[place])
        return Sample(image, _mix(self.seed, stream + 1, position), kind)


@lru_cache(maxsize=4)  # a batch lies in two epochs at most, unless the data set is tiny; two streams take turns
def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _mix(*entropy: int) -> int:
    """63 bits that look random, whatever regular numbers they come from."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
