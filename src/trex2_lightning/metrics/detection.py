"""COCO average precision, overall and by category group, over the images that all ranks have seen.

torchmetrics does the evaluation; the figures equal those of pycocotools on the same images and boxes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_convert

from trex2_lightning.ops.distributed import from_every_rank

# pycocotools' float64 numbers: the float32 defaults of torchmetrics move AP by some 1e-5.
IOU_THRESHOLDS: list[float] = np.linspace(0.5, 0.95, 10).tolist()
RECALL_THRESHOLDS: list[float] = np.linspace(0, 1, 101).tolist()

FAR_OUT = 1e6  # pixels: beyond any image

Result = TypeVar("Result")

SEEN = ("frequent", "common", "rare")  # groups of categories that the training split has


class Truth(NamedTuple):
    """The ground truth of one image."""

    boxes: Tensor  # (n, 4) xyxy, pixels of the original file
    labels: Tensor  # (n,) int64, category index
    crowd: Tensor  # (n,) bool, detections inside such a box count neither for nor against
    area: Tensor  # (n,) pixels
    # (k,) int64, categories whose presence and all of whose boxes are known here; None: all. What is found of another
    # one counts for nothing, but for a box that it finds.
    judged: Tensor | None = None


class ImageResult(NamedTuple):
    """The detections of one image."""

    image_id: int
    boxes: Tensor  # (n, 4) xyxy, pixels of the original file
    scores: Tensor  # (n,) in [0, 1]
    labels: Tensor  # (n,) int64, category index
    unfitted: Tensor | None = None  # (n,) their scores where nothing is fitted; None: these are they


class DetectionMetric:
    """AP of the images it was updated with; an image that several ranks evaluated counts once.

    Args:
        truth: image id to ground truth.
        names: name of each category.
        groups: group of each category, "" where the data set has none.
        backend: who counts; both give the same figures.
        max_detections: best detections that count, per image and category (COCO's definition).
    """

    def __init__(
        self,
        truth: Mapping[int, Truth],
        names: Sequence[str],
        groups: Sequence[str],
        *,
        backend: Literal["pycocotools", "faster_coco_eval"] = "faster_coco_eval",
        max_detections: int = 100,
    ) -> None:
        self.per_category: dict[str, float] = {}  # AP of each category with ground truth, as of the last `compute`
        self._truth = truth
        self._names = tuple(names)
        self._members = group_members(groups)
        self._backend = backend
        self._max_detections = max_detections
        self._results: dict[int, ImageResult] = {}

    def update(self, results: Iterable[ImageResult]) -> None:
        """Add images.

        Raises:
            ValueError: an image that the ground truth does not have.
        """
        for result in results:
            if result.image_id not in self._truth:
                raise ValueError(f"image {result.image_id} is not in the ground truth: evaluate the split it is from")
            self._results[result.image_id] = _on_cpu(result)

    def compute(self) -> dict[str, float]:
        """`ap`, `ap50`, `ap75`, and for each group `ap/GROUP` and `ap50/GROUP`; every rank must call it.

        A group's figure is the mean over its categories that have ground truth; `seen` is the groups frequent,
        common and rare together. NaN where no category has ground truth.

        Raises:
            ValueError: no rank has seen an image.
        """
        ap = self._category_ap(self.results())
        by_name = zip(self._names, ap.mean(0).tolist(), strict=True)
        self.per_category = {name: value for name, value in by_name if not math.isnan(value)}
        figures = {"ap": ap, "ap50": ap[0], "ap75": ap[5]}
        for group, members in self._members.items():
            figures |= {f"ap/{group}": ap[:, members], f"ap50/{group}": ap[0, members]}
        return {name: values.nanmean().item() for name, values in figures.items()}

    def results(self) -> list[ImageResult]:
        """The detections of all ranks by ascending image id; every rank must call it."""
        return from_all_ranks(self._results)

    def reset(self) -> None:
        """Forget all images."""
        self._results = {}

    def _category_ap(self, results: list[ImageResult]) -> Tensor:
        """(10, C) float64, AP at each IoU threshold; NaN for a category without ground truth."""
        if not results:
            raise ValueError("there is nothing to evaluate: the metric has seen no image")
        metric = MeanAveragePrecision(
            iou_thresholds=IOU_THRESHOLDS,
            rec_thresholds=RECALL_THRESHOLDS,
            max_detection_thresholds=sorted([1, 10, self._max_detections]),
            extended_summary=True,  # one pass gives every category at every threshold; `class_metrics` needs a second
            backend=self._backend,
            sync_on_compute=False,
        )
        metric.warn_on_many_detections = False
        truths = [self._truth[result.image_id] for result in results]
        metric.update([*map(_prediction, results, truths)], [*map(_target, truths)])
        summary = metric.compute()
        found = summary["precision"][:, :, :, 0, -1].mean(1)  # (10, categories that occur), all areas; -1: no truth
        ap = torch.full((len(IOU_THRESHOLDS), len(self._names)), torch.nan, dtype=torch.float64)
        ap[:, summary["classes"].long().flatten()] = found.where(found >= 0, torch.nan)
        return ap


def coco_results(results: Iterable[ImageResult], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """The COCO results format (xywh boxes); `category_ids` are the file's ids in the order of the category index."""
    return [
        {"image_id": result.image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for result in results
        for label, box, score in zip(
            result.labels.tolist(),
            box_convert(result.boxes.double(), "xyxy", "xywh").tolist(),
            result.scores.tolist(),
            strict=True,
        )
    ]


def from_all_ranks(results: dict[int, Result]) -> list[Result]:
    """What all ranks have by image id, in ascending order and each image once; every rank must call it."""
    merged: dict[int, Result] = {}
    for shard in from_every_rank(results):
        merged |= shard
    return [merged[image_id] for image_id in sorted(merged)]


def group_members(groups: Sequence[str]) -> dict[str, list[int]]:
    """Group, in order of first appearance, to category indices; `seen` where a group of `SEEN` exists."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        if group:
            members.setdefault(group, []).append(index)
    seen = [index for index, group in enumerate(groups) if group in SEEN]
    return {"seen": seen, **members} if seen else members


def _on_cpu(result: ImageResult) -> ImageResult:
    """A compact copy: a view would drag the whole batch along when it is sent to other ranks."""
    return ImageResult(
        result.image_id,
        result.boxes.detach().to("cpu", torch.float32, copy=True),
        result.scores.detach().to("cpu", torch.float32, copy=True),
        result.labels.detach().to("cpu", torch.int64, copy=True),
        None if result.unfitted is None else result.unfitted.detach().to("cpu", torch.float32, copy=True),
    )


def _prediction(result: ImageResult, truth: Truth) -> dict[str, Tensor]:
    found = {"boxes": result.boxes.double(), "scores": result.scores, "labels": result.labels}
    if truth.judged is None:
        return found
    kept = torch.isin(result.labels, torch.cat([truth.judged, truth.labels]))
    return {name: values[kept] for name, values in found.items()}


def _target(truth: Truth) -> dict[str, Tensor]:
    """With a crowd all over the image for a category that may have more boxes than it is given."""
    partial = truth.labels.unique()
    partial = partial[:0] if truth.judged is None else partial[~torch.isin(partial, truth.judged)]
    everywhere = torch.tensor([[-FAR_OUT, -FAR_OUT, FAR_OUT, FAR_OUT]], dtype=torch.float64).expand(len(partial), 4)
    return {
        "boxes": torch.cat([truth.boxes.double(), everywhere]),
        "labels": torch.cat([truth.labels, partial]),
        "iscrowd": torch.cat([truth.crowd.long(), torch.ones_like(partial)]),
        "area": torch.cat([truth.area, torch.full((len(partial),), 4 * FAR_OUT**2)]),
    }
