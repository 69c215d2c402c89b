"""LVIS average precision, standard and fixed, by frequency of the categories, on federated ground truth.

An image is judged for some categories alone: those that it has (positive) and those that it was searched for in vain
(negative). Detections of other categories count neither for nor against (LVIS, arXiv 1908.03195, section 2.1). Where a
category was not marked exhaustively, neither do its detections that match no box. Standard AP takes the 300 best
detections of an image; fixed AP (Dave et al., arXiv 2102.01066) takes the 10,000 best of a category over all images,
whatever their number in one of them. faster_coco_eval matches and accumulates what is chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from faster_coco_eval import COCO, COCOeval_faster
from torch import Tensor
from torchvision.ops import box_convert

from trex2_lightning.metrics.detection import IOU_THRESHOLDS, DetectionMetric, ImageResult, Truth

PER_IMAGE = 300  # detections, of standard AP
PER_CATEGORY = 10_000  # detections over all images, of fixed AP
NUM_AREAS = 4  # all sizes; up to 32^2, up to 96^2, more square pixels


class Federated(NamedTuple):
    """What is known of one image beside its boxes."""

    judged: Sequence[int]  # categories that are there or were searched for in vain
    not_exhaustive: Sequence[int]  # categories some of whose objects have no box


class LvisMetric(DetectionMetric):
    """AP of the images it was updated with; their detections should be more than 300 each, for fixed AP.

    Args:
        truth: image id to ground truth.
        federated: image id to what is judged there.
        names: name of each category.
        groups: "rare", "common" or "frequent", of each category.
    """

    def __init__(
        self,
        truth: Mapping[int, Truth],
        federated: Mapping[int, Federated],
        names: Sequence[str],
        groups: Sequence[str],
    ) -> None:
        super().__init__(truth, names, groups)
        self._members.pop("seen", None)  # the three groups are all there are
        self._federated = federated

    def compute(self) -> dict[str, float]:
        """`ap`, `ap50`, `ap75`, `aps`, `apm`, `apl`, and `ap/GROUP`; `fixed_ap` and so on; every rank must call it.

        Means over the categories that have ground truth, NaN where none has.

        Raises:
            ValueError: no rank has seen an image.
        """
        everything = super().results()
        if not everything:
            raise ValueError("there is nothing to evaluate: the metric has seen no image")
        image_ids = [result.image_id for result in everything]
        standard = self._ap(image_ids, _rows([_best(result) for result in everything]))
        fixed = self._ap(image_ids, _quota(_rows(everything)))
        by_name = zip(self._names, standard[0].mean(0).tolist(), strict=True)
        self.per_category = {name: value for name, value in by_name if not math.isnan(value)}
        return self._figures(standard) | {f"fixed_{name}": value for name, value in self._figures(fixed).items()}

    def results(self) -> list[ImageResult]:
        """The 300 best detections of each image, as the challenge takes them; every rank must call it."""
        return [_best(result) for result in super().results()]

    def _ap(self, image_ids: list[int], found: _Rows) -> Tensor:
        """(4, 10, C) float64, AP at each IoU threshold; NaN for a category without ground truth of that area."""
        num_categories = len(self._names)
        truth = _truth_rows([self._truth[image_id] for image_id in image_ids])
        judged, loose = (torch.zeros(len(image_ids), num_categories, dtype=torch.bool) for _ in range(2))
        for row, image_id in enumerate(image_ids):
            judged[row, list(self._federated[image_id].judged)] = True
            loose[row, list(self._federated[image_id].not_exhaustive)] = True
        judged[truth.image, truth.label] = True
        found = found.take(judged[found.image, found.label])
        ap = torch.full((NUM_AREAS, len(IOU_THRESHOLDS), num_categories), torch.nan, dtype=torch.float64)
        # The evaluator makes a record for every image and category: of all at once, LVIS val would take gigabytes.
        per_category = zip(truth.by_label(num_categories), found.by_label(num_categories), strict=True)
        for category, (own_truth, own_found) in enumerate(per_category):
            if len(own_truth.image):
                ap[..., category] = _category_ap(own_truth, own_found, loose[:, category])
        return ap

    def _figures(self, ap: Tensor) -> dict[str, float]:
        figures = {"ap": ap[0]} | {f"ap/{group}": ap[0, :, members] for group, members in self._members.items()}
        figures |= {"ap50": ap[0, 0], "ap75": ap[0, 5], "aps": ap[1], "apm": ap[2], "apl": ap[3]}
        return {name: values.nanmean().item() for name, values in figures.items()}


class _Rows(NamedTuple):
    """Boxes of all images, by ascending image."""

    image: Tensor  # (n,) int64, place of the image
    label: Tensor  # (n,) int64
    box: Tensor  # (n, 4) float64, xywh
    value: Tensor  # (n,) float64, the score of a detection, the area of a true box

    def take(self, chosen: Tensor) -> _Rows:
        return _Rows(*(column[chosen] for column in self))

    def by_label(self, num_categories: int) -> list[_Rows]:
        counts = self.label.bincount(minlength=num_categories).tolist()
        columns = (column.split(counts) for column in self.take(self.label.argsort(stable=True)))
        return [_Rows(*own) for own in zip(*columns, strict=True)]


def _rows(results: Sequence[ImageResult]) -> _Rows:
    return _joined([result.boxes for result in results], [r.labels for r in results], [r.scores for r in results])


def _truth_rows(truths: Sequence[Truth]) -> _Rows:
    return _joined([truth.boxes for truth in truths], [t.labels for t in truths], [t.area for t in truths])


def _joined(boxes: list[Tensor], labels: list[Tensor], values: list[Tensor]) -> _Rows:
    image = torch.arange(len(labels)).repeat_interleave(torch.tensor([len(own) for own in labels]))
    xywh = box_convert(torch.cat(boxes).double(), "xyxy", "xywh")
    return _Rows(image, torch.cat(labels), xywh, torch.cat(values).double())


def _best(result: ImageResult) -> ImageResult:
    order = result.scores.argsort(descending=True, stable=True)[:PER_IMAGE]
    unfitted = None if result.unfitted is None else result.unfitted[order]
    return ImageResult(result.image_id, result.boxes[order], result.scores[order], result.labels[order], unfitted)


def _quota(found: _Rows) -> _Rows:
    """The `PER_CATEGORY` best of each category, judged where they are or not."""
    order = found.value.argsort(descending=True, stable=True)
    order = order[found.label[order].argsort(stable=True)]
    counts = found.label.bincount()
    place = torch.arange(len(order)) - (counts.cumsum(0) - counts)[found.label[order]]
    return found.take(order[place < PER_CATEGORY].sort().values)


def _category_ap(truth: _Rows, found: _Rows, loose: Tensor) -> Tensor:
    """(4, 10) AP of one category; `loose` (I,) bool: images where it is not marked exhaustively."""
    images = torch.cat([truth.image, found.image]).unique().tolist()
    content = {
        "images": [
            {"id": i, "neg_category_ids": [1], "not_exhaustive_category_ids": [1] if loose[i] else []} for i in images
        ],
        "categories": [{"id": 1, "frequency": "f"}],
    }
    expected = COCO(content | {"annotations": _annotations(truth, "area")})
    boxes = _annotations(found, "score")
    for box in boxes:
        box["area"] = box["bbox"][2] * box["bbox"][3]
    evaluation = COCOeval_faster(expected, COCO(content | {"annotations": boxes}), "bbox", lvis_style=True)
    evaluation.params.maxDets = [max(len(boxes), 1)]  # of one image: all that are left
    evaluation.evaluate()
    precision = torch.as_tensor(evaluation.eval["precision"])[:, :, 0, :, 0]  # (10, 101, 4); -1: no ground truth
    return precision.where(precision >= 0, torch.nan).mean(1).T


def _annotations(rows: _Rows, value: str) -> list[dict[str, Any]]:
    columns = zip(rows.image.tolist(), rows.box.tolist(), rows.value.tolist(), strict=True)
    return [
        {"id": number, "image_id": image, "category_id": 1, "bbox": box, value: own, "iscrowd": 0}
        for number, (image, box, own) in enumerate(columns, start=1)
    ]
