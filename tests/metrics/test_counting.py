"""Counts against values known on paper, and the threshold against all there are."""

import math

import pytest
import torch
from torch import Tensor

from trex2_lightning.metrics.counting import CountingMetric, best_threshold
from trex2_lightning.metrics.detection import ImageResult, Truth

BOX = [10.0, 10.0, 50.0, 50.0]


def truth(boxes: list[list[float]]) -> Truth:
    corners = torch.tensor(boxes).reshape(-1, 4)
    return Truth(
        corners,
        torch.zeros(len(boxes), dtype=torch.int64),
        torch.zeros(len(boxes), dtype=torch.bool),
        torch.full((len(boxes),), 1600.0),
    )


def result(image_id: int, scores: list[float]) -> ImageResult:
    boxes = torch.tensor(BOX).expand(len(scores), 4)
    return ImageResult(image_id, boxes, torch.tensor(scores), torch.zeros(len(scores), dtype=torch.int64))


def count(threshold: float | None, *images: tuple[int, list[float]]) -> dict[str, float]:
    metric = CountingMetric(
        {i: truth([]) for i in range(len(images))},
        {i: true for i, (true, _) in enumerate(images)},
        ("object",),
        ("",),
        threshold=threshold,
    )
    metric.update(result(i, scores) for i, (_, scores) in enumerate(images))
    return metric.compute()


def test_errors_known_on_paper() -> None:
    """Errors of -2 of 4, 0 of 1 and +1 of 2 objects."""
    figures = count(0.5, (4, [0.9, 0.5]), (1, [0.7, 0.4]), (2, [0.9, 0.8, 0.6, 0.1]))
    assert figures["mae"] == pytest.approx(1)
    assert figures["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert figures["nae"] == pytest.approx((2 / 4 + 0 + 1 / 2) / 3)
    assert figures["sre"] == pytest.approx(math.sqrt((4 / 4 + 0 + 1 / 2) / 3))
    assert figures["threshold"] == 0.5
    assert math.isnan(figures["ap"])


def test_an_image_without_objects_is_taken_as_if_it_had_one() -> None:
    figures = count(0.5, (0, [0.9, 0.8]), (4, [0.9] * 4))
    assert figures["nae"] == pytest.approx((2 / 1 + 0) / 2)
    assert figures["sre"] == pytest.approx(math.sqrt((4 / 1 + 0) / 2))


def test_ap_where_there_are_boxes() -> None:
    metric = CountingMetric({1: truth([BOX])}, {1: 3}, ("object",), ("",), threshold=0.5)
    metric.update([result(1, [0.9])])
    assert metric.compute()["ap"] == 1
    assert metric.compute()["mae"] == 2


def test_without_a_threshold_the_best_one_of_these_images_is_taken() -> None:
    figures = count(None, (1, [0.9, 0.3]), (2, [0.8, 0.6, 0.2]))
    assert (figures["mae"], figures["threshold"]) == (0, pytest.approx(0.6))


def slow_best(scores: list[Tensor], counts: Tensor) -> float:
    candidates = torch.cat([*scores, torch.tensor([2.0])]).unique()
    errors = [
        sum(abs(int((own >= t).sum()) - int(true)) for own, true in zip(scores, counts, strict=True))
        for t in candidates
    ]
    return min(errors)


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_has_a_lower_error(seed: int) -> None:
    """Scores are rounded, so many are equal, within an image and across."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, 30, (12,), generator=generator).tolist()
    scores = [torch.rand(size, generator=generator).mul(20).round() / 20 for size in sizes]
    counts = torch.randint(1, 25, (12,), generator=generator)
    chosen = best_threshold(scores, counts)
    error = sum(abs(int((own >= chosen).sum()) - int(true)) for own, true in zip(scores, counts, strict=True))
    assert error == slow_best(scores, counts)


def test_where_every_detection_is_wrong_none_is_counted() -> None:
    scores = [torch.tensor([0.9, 0.8])]
    assert best_threshold(scores, torch.tensor([0])) > 0.9
    assert best_threshold([torch.zeros(0)], torch.tensor([3])) == 1
