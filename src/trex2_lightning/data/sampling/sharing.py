"""Which images have a category in common: what cross-image batches are made of (T-Rex-Omni, arXiv 2511.08997)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class SharedCategories:
    """An index of images by category and of categories by image, of those categories that two images have.

    Args:
        labels: of each image (n,) int64.
    """

    def __init__(self, labels: Sequence[Tensor]) -> None:
        self.num_images = len(labels)
        held = [np.unique(image.numpy()) for image in labels]
        images = np.repeat(np.arange(len(held)), [len(categories) for categories in held])
        categories = np.concatenate([*held, np.zeros(0, np.int64)])
        shared = np.bincount(categories, minlength=1)[categories] > 1
        images, categories = images[shared], categories[shared]
        self.images = np.unique(images)  # those that share any category
        self._categories_of = _Groups(images, categories)
        self._images_of = _Groups(categories, images)

    def batch(self, first: int, size: int, rng: np.random.Generator) -> list[int]:
        """`first`, one of `images`, and others that each have one of its categories, all of these equally often.

        No image comes twice. Where such images run out, any others follow, and the same ones once more where all do.
        """
        holders = [self._images_of[category] for category in self._categories_of[first]]
        some = np.concatenate([rng.choice(images, min(size, len(images)), replace=False) for images in holders])
        anyone = rng.choice(self.num_images, min(size, self.num_images), replace=False)
        chosen = dict.fromkeys([first, *rng.permutation(some).tolist(), *anyone.tolist()])
        return list(islice(cycle(chosen), size))


class _Groups:
    """The values of each key."""

    def __init__(self, keys: NDArray[np.int64], values: NDArray[np.int64]) -> None:
        self._values = values[np.argsort(keys, kind="stable")]
        self._stops = np.bincount(keys, minlength=1).cumsum()

    def __getitem__(self, key: int) -> NDArray[np.int64]:
        return self._values[self._stops[key - 1] if key else 0 : self._stops[key]]
