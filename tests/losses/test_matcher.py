"""Hungarian matching: optimal, one to one, for each layer and image on its own."""

from itertools import permutations
from math import exp, inf, log, nan

import numpy as np
import pytest
import torch
from torch import Tensor

from trex2_lightning.config import CostConfig
from trex2_lightning.errors import InputError
from trex2_lightning.losses.matcher import HungarianMatcher
from trex2_lightning.structures import Detections, PromptTokens, Targets

MATCHER = HungarianMatcher(CostConfig(classification=2.0, l1=5.0, giou=2.0), focal_alpha=0.25, focal_gamma=2.0)
BOXES = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 0.2, 0.4], [0.8, 0.7, 0.3, 0.2]])


def prompts(category: list[int], valid: list[list[bool]] | None = None) -> PromptTokens:
    num = len(category)
    return PromptTokens(
        embed=torch.zeros(1, num, 4),
        valid=torch.tensor(valid or [[True] * num]),
        category=torch.tensor(category),
        attend=torch.ones(num, num, dtype=torch.bool),
        position=torch.zeros(num, dtype=torch.int64),
    )


def target(labels: list[int], boxes: Tensor) -> Targets:
    return Targets(torch.tensor(labels, dtype=torch.int64), boxes, image_id=7)


def random_batch(seed: int, counts: list[int], layers: int = 2, queries: int = 5, categories: int = 3):
    generator = torch.Generator().manual_seed(seed)

    def boxes(*shape: int) -> Tensor:
        return torch.rand(*shape, 4, generator=generator) * 0.5 + 0.2

    logits = torch.randn(layers, len(counts), queries, categories, generator=generator) * 2
    targets = [Targets(torch.randint(categories, (n,), generator=generator), boxes(n), i) for i, n in enumerate(counts)]
    return Detections(logits, boxes(layers, len(counts), queries)), targets


def paper_cost(logit: float, box: list[float], wanted: list[float]) -> float:
    """The matching cost of one query and one target in plain arithmetic."""
    p = 1 / (1 + exp(-logit))
    classification = -0.25 * (1 - p) ** 2 * log(p) + 0.75 * p**2 * log(1 - p)
    l1 = sum(abs(a - b) for a, b in zip(box, wanted, strict=True))

    def corners(b: list[float]) -> tuple[float, float, float, float]:
        return b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2

    (a0, a1, a2, a3), (b0, b1, b2, b3) = corners(box), corners(wanted)
    overlap = max(0.0, min(a2, b2) - max(a0, b0)) * max(0.0, min(a3, b3) - max(a1, b1))
    union = (a2 - a0) * (a3 - a1) + (b2 - b0) * (b3 - b1) - overlap
    hull = (max(a2, b2) - min(a0, b0)) * (max(a3, b3) - min(a1, b1))
    return 2 * classification + 5 * l1 - 2 * (overlap / union - (hull - union) / hull)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_assignment_is_cheaper(seed: int) -> None:
    detections, targets = random_batch(seed, counts=[3], layers=1)
    assigned = MATCHER(detections, prompts([0, 1, 2]), targets)[0, 0].tolist()
    costs = [
        [
            paper_cost(logits[label], box, wanted)
            for label, wanted in zip(targets[0].labels.tolist(), targets[0].boxes.tolist(), strict=True)
        ]
        for logits, box in zip(detections.logits[0, 0].tolist(), detections.boxes[0, 0].tolist(), strict=True)
    ]
    best = min(permutations(range(5), 3), key=lambda queries: sum(costs[q][j] for j, q in enumerate(queries)))
    assert assigned == [best.index(q) if q in best else -1 for q in range(5)]


def test_boxes_are_as_far_apart_as_their_coordinates_together() -> None:
    """0.2 in one coordinate is nearer than 0.08 in three, which Euclid would call nearer."""
    box = torch.tensor([0.5, 0.5, 0.4, 0.4])
    moved = torch.tensor([[0.2, 0.0, 0.0, 0.0], [0.08, 0.08, 0.08, 0.0]])
    matcher = HungarianMatcher(CostConfig(classification=0.0, l1=1.0, giou=0.0), focal_alpha=0.25, focal_gamma=2.0)
    detections = Detections(torch.zeros(1, 1, 2, 1), (box + moved)[None, None])
    assert matcher(detections, prompts([0]), [target([0], box[None])]).tolist() == [[[0, -1]]]


def test_queries_on_the_boxes_are_matched_in_every_layer_on_its_own() -> None:
    orders = [[0, 1, 2], [2, 0, 1]]
    detections = Detections(torch.zeros(2, 1, 3, 1), torch.stack([BOXES[order] for order in orders])[:, None])
    assert MATCHER(detections, prompts([0]), [target([0, 0, 0], BOXES)])[:, 0].tolist() == orders


def test_class_decides_between_equal_boxes() -> None:
    detections = Detections(torch.tensor([[-3.0, 3.0], [3.0, -3.0]])[None, None], BOXES[[0, 0]][None, None])
    assert MATCHER(detections, prompts([0, 1]), [target([0, 1], BOXES[[0, 0]])]).tolist() == [[[1, 0]]]


def test_tokens_of_a_category_are_averaged() -> None:
    """One good word of two is less than a category whose single word is as good."""
    logits = torch.tensor([[3.0, -3.0, 3.0], [3.0, 3.0, 3.0]])[None, None]
    detections = Detections(logits, BOXES[[0, 0]][None, None])
    assert MATCHER(detections, prompts([0, 0, 1]), [target([0], BOXES[:1])]).tolist() == [[[-1, 0]]]
    assert MATCHER(detections, prompts([0, 0, 1]), [target([1, 0], BOXES[[0, 0]])]).tolist() == [[[0, 1]]]


def test_number_of_tokens_does_not_weigh_a_category() -> None:
    """Two tokens with the logits of one leave the matching as it is."""
    detections, targets = random_batch(3, counts=[3, 2])
    doubled = Detections(detections.logits.repeat_interleave(2, -1), detections.boxes)
    single = MATCHER(detections, prompts([0, 1, 2]), targets)
    assert (MATCHER(doubled, prompts([0, 0, 1, 1, 2, 2]), targets) == single).all()


@pytest.mark.parametrize("hidden", [9.0, inf, -inf, nan])
def test_invalid_tokens_do_not_count(hidden: float) -> None:
    detections, targets = random_batch(4, counts=[3, 2])
    invalid = torch.full((*detections.logits.shape[:-1], 2), hidden)
    invalid[..., ::2, :] *= -1  # differs from query to query
    padded = Detections(torch.cat([detections.logits, invalid], -1), detections.boxes)
    tokens = prompts([0, 1, 2, 1, -1], [[True, True, True, False, False]])
    assert (MATCHER(padded, tokens, targets) == MATCHER(detections, prompts([0, 1, 2]), targets)).all()


def test_images_are_matched_one_by_one() -> None:
    detections, targets = random_batch(5, counts=[3, 0, 1, 5])
    together = MATCHER(detections, prompts([0, 1, 2]), targets)
    for i in range(4):
        alone = Detections(detections.logits[:, i : i + 1], detections.boxes[:, i : i + 1])
        assert (MATCHER(alone, prompts([0, 1, 2]), targets[i : i + 1]) == together[:, i : i + 1]).all()
    assert (together[:, 1] == -1).all()
    assert all(sorted(layer) == [0, 1, 2, 3, 4] for layer in together[:, 3].tolist())


def test_more_targets_than_queries_leave_the_dearest_without_one() -> None:
    detections = Detections(torch.zeros(1, 1, 2, 1), BOXES[[2, 0]][None, None])
    assert MATCHER(detections, prompts([0]), [target([0, 0, 0], BOXES)]).tolist() == [[[2, 0]]]


def test_batch_without_boxes_matches_nothing() -> None:
    detections, targets = random_batch(6, counts=[0, 0])
    assert np.unique(MATCHER(detections, prompts([0, 1, 2]), targets)).tolist() == [-1]


@pytest.mark.parametrize("field", ["logits", "boxes"])
def test_predictions_that_are_not_finite_are_named(field: str) -> None:
    detections, targets = random_batch(7, counts=[2, 2])
    getattr(detections, field)[1, 1, 3] = nan
    with pytest.raises(InputError, match=r"image 1 is not finite"):
        MATCHER(detections, prompts([0, 1, 2]), targets)
