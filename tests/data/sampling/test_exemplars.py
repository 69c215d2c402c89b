from __future__ import annotations

from collections import Counter

import torch

from trex2_lightning.data.sampling.exemplars import sample_exemplars
from trex2_lightning.structures import Exemplars, Targets


def numbered(labels: list[int], image_id: int) -> Targets:
    """Box j of image i is at (i / 10, j / 10)."""
    boxes = torch.tensor([[image_id / 10, j / 10, 0.1, 0.1] for j in range(len(labels))]).reshape(-1, 4)
    return Targets(torch.tensor(labels, dtype=torch.int64), boxes, image_id)


TARGETS = [numbered([0, 2, 0, 0, 2], 0), numbered([], 1), numbered([2], 2)]


def sample(seed: int, limit: int = 16) -> Exemplars:
    return sample_exemplars(TARGETS, 3, limit, "point", torch.Generator().manual_seed(seed))


def test_exemplars_are_boxes_of_their_category_and_image_without_repetition() -> None:
    for seed in range(20):
        boxes, valid, _ = sample(seed)
        assert boxes.shape == (3, 3, valid.shape[-1], 4)
        for image, target in enumerate(TARGETS):
            for category in range(3):
                chosen = boxes[image, category][valid[image, category]].tolist()
                available = target.boxes[target.labels == category].tolist()
                assert len({tuple(box) for box in chosen}) == len(chosen)
                assert all(box in available for box in chosen)
                assert bool(chosen) == bool(available)


def test_numbers_are_uniform_from_one_to_all() -> None:
    counts = Counter(int(sample(seed).valid[0, 0].sum()) for seed in range(600))
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 150


def test_every_box_is_chosen_equally_often() -> None:
    chosen: Counter[float] = Counter()
    for seed in range(600):
        boxes, valid, _ = sample(seed)
        chosen.update(round(y, 1) for y in boxes[0, 0][valid[0, 0]][:, 1].tolist())
    assert set(chosen) == {0.0, 0.2, 0.3}
    assert max(chosen.values()) < 1.15 * min(chosen.values())


def test_padding_is_as_small_as_the_batch_allows_and_the_limit_holds() -> None:
    for seed in range(20):
        valid = sample(seed).valid
        assert valid.any((0, 1))[-1]
        assert sample(seed, limit=2).valid.sum(-1).max() <= 2


def test_a_batch_without_boxes_has_room_for_one() -> None:
    boxes, valid, _ = sample_exemplars([numbered([], 0)], 1, 16, "box", torch.Generator())
    assert boxes.shape == (1, 1, 1, 4)
    assert not boxes.any()
    assert not valid.any()


def test_the_generator_is_the_only_source_of_randomness() -> None:
    torch.manual_seed(0)
    first = sample(5)
    torch.manual_seed(1)
    again = sample(5)
    assert again.boxes.equal(first.boxes)
    assert again.valid.equal(first.valid)
    assert again.kind == "point"
