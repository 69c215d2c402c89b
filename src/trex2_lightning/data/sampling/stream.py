"""The order of the training images: for each data set and orientation one stream for text and one per source of visual
prompts, which any rank can enter anywhere.

Position p counts the images that a stream has given since step 0 over all ranks. Which image it is and how it is
augmented follow from p and the run's seed alone, so a run resumes exactly, and W ranks together see the images that one
would see with the same total batch, which also decides whether orientations have streams of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from trex2_lightning.config import ExemplarsConfig, RhythmConfig
from trex2_lightning.data.sampling.mixture import TrainSet
from trex2_lightning.data.sampling.rhythm import ImageSource, PromptKind, exemplar_kind, mix, turn

VISUAL_STREAMS: dict[ImageSource, int] = {"any": 2, "cross_image": 5, "nameless": 8}
PORTRAIT = 11  # and more: numbers of the streams of portrait images


class Sample(NamedTuple):
    """The key of a training example, which depends on nothing else."""

    image: int  # index into the images
    seed: int  # of the augmentation, 63 bits
    kind: PromptKind = "text"
    source: ImageSource = "any"
    number: int = 0  # of the data set


class TrainStream(Sampler[list[Sample]]):
    """Batches `start` to `stop` of one rank; slot j of batch m is position (m * world + rank) * batch_size + j.

    m counts the batches of the same kind, set, source and orientation, so no stream loses or repeats an image because
    of another. As many positions as the set has images of the orientation are a new permutation of them, and where the
    set's `portrait` is empty, all images are of one. Of a cross-image batch this holds for the first image alone, over
    the images of any orientation that share a category with another; the rest of the batch follows from the first and
    from m: to choose among those of the first's orientation would show some categories less often. The length is that
    of the whole run: Lightning adds the batches done before a restart to those it fetches, and compares the sum with
    the length.

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
        self._images = [_orientations(some) for some in sets]
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
            visual, before, source, number, portrait = turn(
                step, self.rhythm, self.sets, cross_image=self.exemplars.cross_image
            )
            chosen, own = self.sets[number], self._images[number][portrait]
            place = (before * self.accumulate + part) * self.world + self.rank
            positions = range(place * self.batch_size, (place + 1) * self.batch_size)
            first = PORTRAIT if portrait else 0
            stream = _Stream(self.seed, first + (VISUAL_STREAMS[source] if visual else 0), chosen.name)
            kind: PromptKind = exemplar_kind(step, self.seed, self.exemplars) if visual else "text"
            if source == "cross_image":
                images = self._sharing(chosen, place, stream)
            else:
                images = [int(own[stream.image(position, len(own))]) for position in positions]
            yield [
                Sample(image, stream.seed(1, position), kind, source, number)
                for image, position in zip(images, positions, strict=True)
            ]

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
        return mix(self.run_seed, self.number + use, place, *self.name.encode())

    def image(self, position: int, count: int) -> int:
        """Which of `count` images is at a position."""
        epoch, place = divmod(position, count)
        return int(_permutation(count, self.seed(0, epoch))[place])


def _orientations(some: TrainSet) -> tuple[Sequence[int] | NDArray[np.int64], NDArray[np.int64]]:
    """The images that are not portrait, and those that are."""
    if not len(some.portrait):
        return range(len(some.images)), some.portrait
    return np.delete(np.arange(len(some.images)), some.portrait), some.portrait


def rank_order(num_images: int, batch_size: int, rank: int, world: int) -> list[int]:
    """Which images a rank evaluates: whole batches of those that one process would make, so that padding is the same.

    All ranks have as many batches; where their number does not divide, some are evaluated twice.
    """
    num_batches = -(-num_images // batch_size)
    turns = -(-num_batches // world)
    starts = [(turn * world + rank) % num_batches * batch_size for turn in range(turns)]
    return [image for start in starts for image in range(start, min(start + batch_size, num_images))]


@lru_cache(maxsize=32)  # a batch lies in two epochs at most, unless the data set is tiny; the streams take turns
def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))
