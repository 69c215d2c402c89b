"""Cross-image batches by a slow search, and what happens where images run out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from trex2_lightning.data.sampling.sharing import SharedCategories

# Category 3 is in one image alone, image 4 is empty, and nobody shares with image 5.
IMAGES = [{0, 1}, {1}, {0, 2}, {2, 3}, set(), {4}]


def index(images: list[set[int]]) -> SharedCategories:
    """Every category twice in its image."""
    return SharedCategories([torch.tensor(sorted(image) * 2, dtype=torch.int64) for image in images])


def batches(first: int, size: int, count: int = 20) -> list[list[int]]:
    shared = index(IMAGES)
    return [shared.batch(first, size, np.random.default_rng(seed)) for seed in range(count)]


def test_images_are_those_that_share_a_category() -> None:
    assert index(IMAGES).images.tolist() == [0, 1, 2, 3]
    assert index([{0}, {1}, set()]).images.tolist() == []
    assert index([set()]).images.tolist() == []


def test_the_others_have_a_category_of_the_first() -> None:
    rng = np.random.default_rng(0)
    images = [set(rng.choice(8, rng.integers(0, 4), replace=False).tolist()) for _ in range(60)]
    shared = index(images)
    for first in shared.images.tolist():
        holders = {other for other, image in enumerate(images) if image & images[first]} - {first}
        batch = shared.batch(first, 4, np.random.default_rng(first))
        assert batch[0] == first
        assert len(set(batch)) == 4
        assert len(holders.intersection(batch)) == min(3, len(holders))


def test_each_category_of_the_first_brings_others_equally_often() -> None:
    """Of image 0, category 1 is in image 1 and category 0 in image 2."""
    others = Counter(batch[1] for batch in batches(0, 2, count=200))
    assert set(others) == {1, 2}
    assert 80 <= others[1] <= 120


def test_any_image_of_a_category_may_be_the_other() -> None:
    shared = index([{0}] * 6)
    others = Counter(shared.batch(2, 2, np.random.default_rng(seed))[1] for seed in range(200))
    assert set(others) == {0, 1, 3, 4, 5}
    assert min(others.values()) > 20


def test_any_images_follow_where_those_run_out_and_all_once_more_where_there_are_no_others() -> None:
    for batch in batches(3, 4):
        assert batch[:2] == [3, 2]
        assert len(set(batch)) == 4
    for batch in batches(3, 8):
        assert sorted(batch[:6]) == [0, 1, 2, 3, 4, 5]
        assert batch[6:] == batch[:2]


def test_the_generator_is_the_only_source_of_randomness() -> None:
    assert batches(0, 5) == batches(0, 5)
    assert len({tuple(batch) for batch in batches(0, 5)}) > 5
