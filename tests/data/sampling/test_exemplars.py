from __future__ import annotations

from collections import Counter

import torch

from trex2_lightning.data.sampling.exemplars import background_exemplars, jittered, sample_exemplars
from trex2_lightning.ops.boxes import cxcywh_to_xyxy
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


def corner_moves(sizes: tuple[int, int], box: list[float], share: float = 0.1) -> torch.Tensor:
    """(400, 4) how far the sides of a box move, in shares of the image."""
    exemplars = Exemplars(torch.tensor(box).expand(400, 1, 1, 4), torch.ones(400, 1, 1, dtype=torch.bool))
    moved = jittered(exemplars, torch.tensor([sizes] * 400), share, torch.Generator().manual_seed(0))
    return (cxcywh_to_xyxy(moved.boxes) - cxcywh_to_xyxy(exemplars.boxes))[:, 0, 0]


def test_each_side_moves_by_itself_by_up_to_a_tenth_of_the_box() -> None:
    moves = corner_moves((100, 100), [0.5, 0.5, 0.2, 0.4])
    for side, most in zip(moves.T, (0.02, 0.04, 0.02, 0.04), strict=True):
        assert 0.95 * most < side.abs().max() <= most + 1e-6
        assert abs(side.mean()) < 0.2 * most
    assert torch.corrcoef(moves.T).fill_diagonal_(0).abs().max() < 0.2


def test_no_side_moves_by_more_than_twenty_pixels() -> None:
    moves = corner_moves((400, 1000), [0.5, 0.5, 0.9, 0.9])  # a tenth are 36 and 90
    for side, most in zip(moves.T, (0.02, 0.05, 0.02, 0.05), strict=True):
        assert 0.95 * most < side.abs().max() <= most + 1e-6


def test_a_moved_box_stays_in_the_image() -> None:
    moves = corner_moves((100, 100), [0.5, 0.5, 1.0, 1.0])
    assert (moves[:, :2] >= -1e-6).all()
    assert (moves[:, 2:] <= 1e-6).all()


def test_the_background_is_as_large_as_the_boxes_and_holds_next_to_nothing_of_them() -> None:
    marked = torch.tensor([[0.3, 0.3, 0.3, 0.3], [0.75, 0.75, 0.2, 0.1]])
    targets = [Targets(torch.tensor([0, 1]), marked, 0), numbered([], 1)]
    sides = set()
    for seed in range(20):
        found = background_exemplars(targets, 2, "box", torch.Generator().manual_seed(seed))
        assert found.boxes.shape == (2, 1, 2, 4)
        assert found.valid.tolist() == [[[True, True]], [[False, False]]]
        for box in found.boxes[0, 0]:
            sides.add(tuple(box[2:].tolist()))
            corners = cxcywh_to_xyxy(box)
            assert (corners >= -1e-6).all()
            assert (corners <= 1 + 1e-6).all()
            for other in cxcywh_to_xyxy(marked):
                shared = (torch.minimum(corners[2:], other[2:]) - torch.maximum(corners[:2], other[:2])).clamp(min=0)
                assert shared.prod() < 0.1 * box[2:].prod()
    assert sides == {tuple(box[2:].tolist()) for box in marked}


def test_where_boxes_are_everywhere_there_is_no_background() -> None:
    full = Targets(torch.tensor([0]), torch.tensor([[0.5, 0.5, 1.0, 1.0]]), 0)
    assert not background_exemplars([full], 2, "point", torch.Generator()).valid.any()
