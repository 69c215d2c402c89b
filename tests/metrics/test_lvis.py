"""LVIS figures against values known on paper for each federated rule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trex2_lightning.metrics import lvis
from trex2_lightning.metrics.detection import ImageResult, Truth, coco_results
from trex2_lightning.metrics.lvis import Federated, LvisMetric

A, B, C, FAR = [10, 10, 50, 50], [60, 60, 90, 90], [100, 10, 140, 50], [10, 60, 30, 95]
NAMES, GROUPS = ("cat", "dog", "yak"), ("frequent", "common", "rare")
Detection = tuple[list[int], float, int]


def corners(boxes: list[list[int]]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def truth(*objects: tuple[list[int], int]) -> Truth:
    boxes = corners([box for box, _ in objects])
    labels = torch.tensor([label for _, label in objects], dtype=torch.int64)
    return Truth(boxes, labels, torch.zeros(len(labels), dtype=torch.bool), (boxes[:, 2:] - boxes[:, :2]).prod(-1))


def result(image_id: int, *found: Detection) -> ImageResult:
    return ImageResult(
        image_id,
        corners([box for box, _, _ in found]),
        torch.tensor([score for _, score, _ in found], dtype=torch.float32),
        torch.tensor([label for _, _, label in found], dtype=torch.int64),
    )


def evaluate(
    images: dict[int, tuple[Truth, Federated]], *results: ImageResult, names: tuple[str, ...] = NAMES
) -> dict[str, float]:
    truths, federated = ({i: image[part] for i, image in images.items()} for part in (0, 1))
    metric = LvisMetric(truths, federated, names, GROUPS[: len(names)])  # type: ignore[arg-type]
    metric.update(results)
    return metric.compute()


def ap_of(federated: Federated, *found: Detection, objects: tuple[tuple[list[int], int], ...] = ((A, 0),)) -> float:
    return evaluate({1: (truth(*objects), federated)}, result(1, *found))["ap"]


def test_a_category_that_was_not_looked_for_counts_neither_for_nor_against() -> None:
    """A dog on picture 1, which nobody judged for dogs, is not wrong; it is where dogs are a negative."""
    hit, wrong = (A, 0.5, 1), (FAR, 0.9, 1)
    for negatives, expected in (([], 1.0), ([1], 0.5)):
        images = {1: (truth((A, 0)), Federated(negatives, [])), 2: (truth((A, 1)), Federated([], []))}
        figures = evaluate(images, result(1, (A, 0.9, 0), wrong), result(2, hit))
        assert figures["ap/common"] == pytest.approx(expected)
        assert figures["ap/frequent"] == 1


def test_a_category_that_is_there_is_judged_without_being_listed() -> None:
    assert ap_of(Federated([], []), (FAR, 0.9, 0), (A, 0.8, 0)) == pytest.approx(0.5)


def test_unmatched_detections_of_a_category_that_is_not_marked_exhaustively_are_ignored() -> None:
    found = ((FAR, 0.9, 0), (A, 0.8, 0))
    assert ap_of(Federated([], [0]), *found) == 1
    assert ap_of(Federated([], [1]), *found) == pytest.approx(0.5)


def test_a_category_that_is_not_marked_exhaustively_is_still_to_be_found() -> None:
    """One of two objects: precision 1 up to recall 0.5."""
    found = ((A, 0.9, 0), (FAR, 0.95, 0))
    assert ap_of(Federated([], [0]), *found, objects=((A, 0), (B, 0))) == pytest.approx(51 / 101)


def test_a_second_find_of_an_object_is_wrong_but_where_not_exhaustive() -> None:
    found = ((A, 0.9, 0), (A, 0.8, 0), (B, 0.7, 0))
    objects = ((A, 0), (B, 0))
    assert ap_of(Federated([], []), *found, objects=objects) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert ap_of(Federated([], [0]), *found, objects=objects) == 1


def test_figures_by_frequency_are_means_over_categories() -> None:
    images = {1: (truth((A, 0), (B, 1), (C, 2)), Federated([], []))}
    figures = evaluate(images, result(1, (A, 0.9, 0), (FAR, 0.9, 1), (B, 0.8, 1)))
    assert figures["ap"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert [figures[f"ap/{group}"] for group in GROUPS] == pytest.approx([1, 0.5, 0])
    assert "ap/seen" not in figures


def test_figures_by_area() -> None:
    """A and C have 1600 square pixels, B 900."""
    images = {1: (truth((A, 0), (B, 0)), Federated([], []))}
    figures = evaluate(images, result(1, (B, 0.9, 0)), names=("cat",))
    assert (figures["aps"], figures["apm"]) == (1, 0)
    assert math.isnan(figures["apl"])
    assert figures["ap"] == pytest.approx(51 / 101)


def test_of_an_image_the_300_best_detections_count_in_standard_and_all_in_fixed_ap() -> None:
    """300 finds of something else are before the right one; what they find is not judged, yet they use up the room."""
    others = [(FAR, 0.9, 2)] * 300
    images = {1: (truth((A, 0)), Federated([], []))}
    figures = evaluate(images, result(1, *others, (A, 0.5, 0)))
    assert (figures["ap"], figures["fixed_ap"]) == (0, 1)
    figures = evaluate(images, result(1, *others[1:], (A, 0.5, 0)))
    assert (figures["ap"], figures["fixed_ap"]) == (1, 1)


def test_of_a_category_the_10_000_best_detections_count_in_fixed_ap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here 3: finds on picture 2, where nobody judged cats, use up the room of the right one."""
    assert lvis.PER_CATEGORY == 10_000
    monkeypatch.setattr(lvis, "PER_CATEGORY", 3)
    images = {1: (truth((A, 0)), Federated([], [])), 2: (truth((A, 1)), Federated([], []))}
    for elsewhere, expected in ((2, 1), (3, 0)):
        figures = evaluate(images, result(1, (A, 0.5, 0)), result(2, *[(A, 0.9, 0)] * elsewhere, (A, 0.9, 1)))
        assert (figures["ap/frequent"], figures["fixed_ap/frequent"]) == (1, expected)


def test_the_results_are_the_challenge_s() -> None:
    metric = LvisMetric({1: truth((A, 0))}, {1: Federated([], [])}, NAMES, GROUPS)
    metric.update([result(1, *[(FAR, 0.1, 0)] * 300, (A, 0.9, 1))])
    written = coco_results(metric.results(), [11, 22, 33])
    assert len(written) == 300
    assert written[0] == {"image_id": 1, "category_id": 22, "bbox": [10, 10, 40, 40], "score": pytest.approx(0.9)}


def test_nothing_found_and_nothing_there() -> None:
    images = {1: (truth((A, 0)), Federated([1], []))}
    figures = evaluate(images, result(1))
    assert (figures["ap"], figures["ap/frequent"]) == (0, 0)
    assert math.isnan(figures["ap/common"])
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(images)
