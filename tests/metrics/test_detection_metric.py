"""AP against figures known on paper."""

import math

import pytest
import torch

from trex2_lightning.metrics.detection import DetectionMetric, ImageResult, Truth

A, B, FAR = [10.0, 10.0, 50.0, 50.0], [60.0, 60.0, 90.0, 90.0], [10.0, 60.0, 30.0, 95.0]


def truth(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> Truth:
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    sizes = corners[:, 2:] - corners[:, :2]
    return Truth(corners, torch.tensor(labels).long(), torch.tensor(crowd or [False] * len(labels)), sizes.prod(-1))


def result(image_id: int, boxes: list[list[float]], scores: list[float], labels: list[int]) -> ImageResult:
    return ImageResult(
        image_id,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels).long(),
    )


def evaluate(
    backend: str,
    truths: dict[int, Truth],
    results: list[ImageResult],
    groups: tuple[str, ...] = ("", ""),
    **options: int,
) -> dict[str, float]:
    metric = DetectionMetric(truths, ("cat", "dog"), groups, backend=backend, **options)
    metric.update(results)
    return metric.compute()


def test_perfect_detections_have_ap_one(backend: str) -> None:
    figures = evaluate(backend, {7: truth([A, B], [0, 1])}, [result(7, [A, B], [0.9, 0.2], [0, 1])])
    assert figures == pytest.approx({"ap": 1, "ap50": 1, "ap75": 1})


def test_half_of_the_boxes_found_gives_the_recall_points_up_to_one_half(backend: str) -> None:
    figures = evaluate(backend, {7: truth([A, B], [0, 0])}, [result(7, [A], [0.9], [0])])
    assert figures["ap"] == pytest.approx(51 / 101)  # precision is 1 at recalls 0, 0.01, ..., 0.5


def test_a_box_counts_up_to_its_overlap(backend: str) -> None:
    narrow = [10.0, 10.0, 50.0, 38.8]  # IoU 0.72: right at 0.5, 0.55, ..., 0.7
    figures = evaluate(backend, {7: truth([A], [0])}, [result(7, [narrow], [0.9], [0])])
    assert figures == pytest.approx({"ap": 0.5, "ap50": 1, "ap75": 0})


def test_the_wrong_category_finds_nothing(backend: str) -> None:
    figures = evaluate(backend, {7: truth([A], [0])}, [result(7, [A], [0.9], [1])])
    assert figures["ap"] == 0


@pytest.mark.parametrize(
    ("duplicate", "ap"),
    [
        (0.8, 1.0),  # hit, hit, miss
        (0.95, (51 + 50 * 2 / 3) / 101),  # hit, miss, hit: precision 1 up to recall 1/2, then 2/3
        (0.99, (51 + 50 * 2 / 3) / 101),  # the copy is the hit, the exact box the miss
    ],
)
def test_a_duplicate_hurts_where_it_outranks_a_find(backend: str, duplicate: float, ap: float) -> None:
    near = [11.0, 10.0, 50.0, 50.0]  # IoU 0.975 with A
    truths = {1: truth([A], [0]), 2: truth([A], [0])}
    finds = [result(1, [A, near], [0.98, duplicate], [0, 0]), result(2, [A], [0.9], [0])]
    assert evaluate(backend, truths, finds)["ap"] == pytest.approx(ap)


def test_detections_in_a_crowd_do_not_count(backend: str) -> None:
    truths = {7: truth([A, [0, 55, 100, 100]], [0, 0], crowd=[False, True])}
    figures = evaluate(backend, truths, [result(7, [FAR, B, A], [0.9, 0.8, 0.7], [0, 0, 0])])
    assert figures["ap"] == pytest.approx(1)
    assert evaluate(backend, {7: truth([A], [0])}, [result(7, [FAR, A], [0.9, 0.7], [0, 0])])["ap"] == pytest.approx(
        0.5
    )


def test_categories_without_truth_are_left_out_of_their_group(backend: str) -> None:
    metric = DetectionMetric(
        {7: truth([A, B], [0, 2])}, ("cat", "dog", "cow"), ("common", "common", "novel"), backend=backend
    )
    metric.update([result(7, [A, FAR], [0.9, 0.8], [0, 1])])
    figures = metric.compute()
    assert figures == pytest.approx(
        {"ap": 0.5, "ap50": 0.5, "ap75": 0.5}
        | {"ap/seen": 1, "ap50/seen": 1, "ap/common": 1, "ap50/common": 1, "ap/novel": 0, "ap50/novel": 0}
    )
    assert metric.per_category == pytest.approx({"cat": 1, "cow": 0})


def test_a_group_without_any_truth_is_nan_and_does_not_vanish(backend: str) -> None:
    figures = evaluate(backend, {7: truth([A], [0])}, [result(7, [A], [0.9], [0])], groups=("rare", "composed"))
    assert [figures["ap/rare"], figures["ap/seen"]] == pytest.approx([1, 1])
    assert math.isnan(figures["ap/composed"])


def test_images_without_boxes_or_detections(backend: str) -> None:
    nothing = result(8, [], [], [])
    assert math.isnan(evaluate(backend, {8: truth([], [])}, [nothing])["ap"])
    assert evaluate(backend, {8: truth([A], [0])}, [nothing])["ap"] == 0
    found = result(7, [A], [0.5], [0])
    assert evaluate(backend, {7: truth([A], [0]), 8: truth([], [])}, [found, nothing])["ap"] == pytest.approx(1)
    false_alarm = result(8, [A], [0.9], [0])
    assert evaluate(backend, {7: truth([A], [0]), 8: truth([], [])}, [found, false_alarm])["ap"] == pytest.approx(0.5)


def test_only_the_images_seen_since_the_reset_count(backend: str) -> None:
    metric = DetectionMetric({1: truth([A], [0]), 2: truth([B], [0])}, ("cat",), ("",), backend=backend)
    metric.update([result(1, [], [], [])])
    assert metric.compute()["ap"] == 0
    metric.reset()
    metric.update([result(2, [B], [0.9], [0])])
    assert metric.compute()["ap"] == pytest.approx(1)


def test_max_detections_other_than_coco_s_hundred(backend: str) -> None:
    detections = result(7, [FAR, A], [0.9, 0.8], [0, 0])
    assert evaluate(backend, {7: truth([A], [0])}, [detections], max_detections=300)["ap"] == pytest.approx(0.5)
    many = result(7, [FAR] * 20 + [A], [0.9] * 20 + [0.8], [0] * 21)
    assert evaluate(backend, {7: truth([A], [0])}, [many], max_detections=20)["ap"] == 0
    assert evaluate(backend, {7: truth([A], [0])}, [many], max_detections=21)["ap"] == pytest.approx(1 / 21)


def test_errors_are_readable() -> None:
    metric = DetectionMetric({1: truth([A], [0])}, ("cat",), ("",))
    with pytest.raises(ValueError, match="image 2 is not in the ground truth"):
        metric.update([result(2, [], [], [])])
    with pytest.raises(ValueError, match="nothing to evaluate"):
        metric.compute()


def test_later_changes_of_a_result_do_not_reach_the_metric() -> None:
    metric = DetectionMetric({1: truth([A], [0])}, ("cat",), ("",))
    boxes, scores, labels = torch.tensor([[A, B], [B, B]]), torch.tensor([[0.75, 0.5]]), torch.tensor([[3, 1]])
    metric.update([ImageResult(1, boxes[0, :1], scores[0, :1], labels[0, :1])])
    for given in (boxes, scores, labels):
        given.zero_()
    (kept,) = metric.results()
    assert [tensor.tolist() for tensor in kept[1:4]] == [[A], [0.75], [3]]
    assert [tensor.untyped_storage().nbytes() for tensor in kept[1:4]] == [16, 4, 8]


def test_what_an_image_does_not_judge_counts_for_nothing(backend: str) -> None:
    """Federated data: image 8 says of cats alone what it has."""
    truths = {7: truth([A, B], [0, 1]), 8: truth([A], [0])._replace(judged=torch.tensor([0]))}
    found = [result(7, [A, B], [0.5, 0.5], [0, 1]), result(8, [A, B], [0.5, 0.9], [0, 1])]
    assert evaluate(backend, truths, found) == pytest.approx({"ap": 1, "ap50": 1, "ap75": 1})
    wrong = [found[0], result(8, [A, B], [0.5, 0.9], [0, 0])]
    assert evaluate(backend, truths, wrong)["ap"] < 0.9  # a cat that is not there is one all the same


def test_of_a_category_with_boxes_that_is_not_judged_others_may_be_there(backend: str) -> None:
    truths = {7: truth([A, B], [0, 1]), 8: truth([A], [1])._replace(judged=torch.tensor([0]))}
    found = [result(7, [A, B], [0.5, 0.5], [0, 1]), result(8, [A, B, FAR], [0.5, 0.9, 0.8], [1, 1, 1])]
    assert evaluate(backend, truths, found) == pytest.approx({"ap": 1, "ap50": 1, "ap75": 1})
    missed = [found[0], result(8, [B], [0.9], [1])]
    assert evaluate(backend, truths, missed)["ap"] < 0.9  # the one that is marked has to be found
