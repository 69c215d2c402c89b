"""The order of the training images: one stream, indexed by position, which any rank can enter anywhere.

Position p counts the images consumed since step 0 over all ranks. Which image it is and how it is augmented follow
from p and the run's seed alone, so a run resumes exactly, and W ranks together see the images that one would see.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


class Sample(NamedTuple):
    """The key of a training example, which depends on nothing else."""

    image: int  # index into the images
    seed: int  # of the augmentation, 63 bits


class TrainStream(Sampler[list[Sample]]):
    """Batches `start` to `stop` of one rank; slot j of batch m is position (m * world + rank) * batch_size + j.

    Every `num_images` positions are a new permutation of the images. The length is that of the whole run: Lightning
    adds the batches done before a restart to those it fetches, and compares the sum with the length.
    """

    def __init__(
        self, num_images: int, batch_size: int, seed: int, *, rank: int, world: int, start: int, stop: int
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop

    def __iter__(self) -> Iterator[list[Sample]]:
        for batch in range(self.start, self.stop):
            first = (batch * self.world + self.rank) * self.batch_size
            yield [self._sample(position) for position in range(first, first + self.batch_size)]

    def _sample(self, position: int) -> Sample:
        epoch, place = divmod(position, self.num_images)
        image = int(_permutation(self.num_images, _mix(self.seed, 0, epoch))[place])
        return Sample(image, _mix(self.seed, 1, position))


@lru_cache(maxsize=2)  # a batch lies in two epochs at most, unless the data set is tiny
def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _mix(*entropy: int) -> int:
    """63 bits that look random, whatever regular numbers they come from."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
