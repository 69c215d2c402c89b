"""Whether scores keep what they promise: of a hundred detections with score .7, seventy are right.

Reliability diagrams and the expected calibration error (Guo et al., arXiv 1706.04599), of detections as Küppers et al.
have it (arXiv 2004.13546), with what is right as `evaluation.fits` has it.

n detections, C categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trex2_lightning.data.records import ImageRecord
from trex2_lightning.evaluation.curves import curve
from trex2_lightning.evaluation.fits import is_known, is_right
from trex2_lightning.metrics.detection import ImageResult
from trex2_lightning.ops.boxes import xyxy_to_cxcywh
from trex2_lightning.structures import Targets

BINS = 10  # of equal width
LEAST = 0.05  # score; nobody looks at what has less, and its number would hide all else


class ReliabilityBin(NamedTuple):
    """Detections of nearly the same score."""

    score: float  # their mean
    right: float  # the share of them that is
    num: int  # of them


class Reliability(NamedTuple):
    """What detections promised and kept, in bins of rising score; empty ones are left out."""

    scores: list[ReliabilityBin]
    unfitted: list[
        ReliabilityBin
    ]  # of the same detections by their scores before the fit; none where nothing was fitted

    def table(self) -> Iterator[tuple[str, float, float, int]]:
        """A line for each bin: `scores` or `unfitted`, mean score, share that is right, count."""
        for kind, bins in self._asdict().items():
            yield from ((kind, round(one.score, 4), round(one.right, 4), one.num) for one in bins)

    def figures(self) -> dict[str, float]:
        """`calibration_error`, and where something was fitted `calibration_error_unfitted`; NaN without detections."""
        figures = {"calibration_error": calibration_error(self.scores)}
        return figures | ({"calibration_error_unfitted": calibration_error(self.unfitted)} if self.unfitted else {})


def reliability(results: Iterable[ImageResult], images: Mapping[int, ImageRecord], num_categories: int) -> Reliability:
    """Of the detections in images with ground truth.

    What an image does not judge, and what lies in a crowd, counts neither for nor against.

    Args:
        results: of these images.
        images: the ground truth by image id.
        num_categories: C.
    """
    fitted: list[tuple[Tensor, Tensor]] = []
    before: list[tuple[Tensor, Tensor]] = []
    for result in results:
        record = images[result.image_id]
        fitted.append(_judged(result, result.scores, record, num_categories))
        if result.unfitted is not None:
            before.append(_judged(result, result.unfitted, record, num_categories))
    return Reliability(_bins(fitted), _bins(before))


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """How far the share that is right is from the score, as a mean over the detections; NaN of none."""
    total = sum(one.num for one in bins)
    return sum(one.num * abs(one.right - one.score) for one in bins) / total if total else float("nan")


def write_reliability(rows: Mapping[str, Reliability], folder: Path) -> None:
    """Write `reliability.png`, and `reliability_unfitted.png` where something was fitted: a curve for each row."""
    for kind, name in (("scores", "reliability"), ("unfitted", "reliability_unfitted")):
        bins = {row: getattr(one, kind) for row, one in rows.items() if getattr(one, kind)}
        if bins:
            series = {row: [(one.score, one.right) for one in own] for row, own in bins.items()}
            curve(series | {"as promised": [(0, 0), (1, 1)]}, folder / f"{name}.png", "share that is right", "score")


def _judged(result: ImageResult, scores: Tensor, record: ImageRecord, num_categories: int) -> tuple[Tensor, Tensor]:
    """Scores (n,) that anybody looks at, and whether they are right (n,), where the image says it."""
    kept = scores >= LEAST
    if not kept.any():
        return scores[kept], kept[kept]
    scores, labels = scores[kept], result.labels[kept]
    size = scores.new_tensor([record.width, record.height] * 2)
    boxes, real = xyxy_to_cxcywh(result.boxes[kept] / size), ~record.crowd
    target = Targets(record.labels[real], xyxy_to_cxcywh(record.boxes[real] / size), record.id)
    own = (torch.arange(len(scores)), labels)
    by_category = scores.new_zeros(len(scores), num_categories).index_put(own, scores)
    right = is_right(boxes, by_category, target)[own]
    judged = right | is_known(boxes, num_categories, record)[own]
    return scores[judged], right[judged]


def _bins(detections: Sequence[tuple[Tensor, Tensor]]) -> list[ReliabilityBin]:
    if not detections:
        return []
    scores, right = (torch.cat(values).double() for values in zip(*detections, strict=True))
    place = (scores * BINS).long().clamp(max=BINS - 1)
    counts = torch.bincount(place, minlength=BINS)
    sums = [torch.bincount(place, values, minlength=BINS) for values in (scores, right)]
    rows = zip(*[(each / counts).tolist() for each in sums], counts.tolist(), strict=True)
    return [ReliabilityBin(score, share, num) for score, share, num in rows if num]
