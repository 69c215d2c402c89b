"""Counting by detection: how far the number of detections above a score is from the number of objects.

MAE and RMSE as in FSC-147 (arXiv 2104.08391), NAE and SRE as in arXiv 2207.10988.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trex2_lightning.metrics.detection import DetectionMetric, Truth


class CountingMetric(DetectionMetric):
    """AP and counts of the images it was updated with, whose objects are of one category.

    Args:
        truth: image id to ground truth.
        counts: image id to its number of objects, which need not all have boxes.
        names: name of the category.
        groups: of the category.
        threshold: score from which a detection counts; None: the one with the lowest MAE on these very images, which
            is for a validation split.
        options: of `DetectionMetric`.
    """

    def __init__(
        self,
        truth: Mapping[int, Truth],
        counts: Mapping[int, int],
        names: Sequence[str],
        groups: Sequence[str],
        *,
        threshold: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(truth, names, groups, **options)
        self._counts = counts
        self._threshold = threshold

    def compute(self) -> dict[str, float]:
        """`mae`, `rmse`, `nae`, `sre`, the `threshold` that was used, and AP where there are boxes."""
        results = self.results()
        figures = super().compute()
        scores = [result.scores for result in results]
        counts = torch.tensor([self._counts[result.image_id] for result in results])
        threshold = best_threshold(scores, counts) if self._threshold is None else self._threshold
        found = torch.tensor([int((own >= threshold).sum()) for own in scores])
        error = (found - counts).abs().double()
        relative_to = counts.clamp(min=1)
        return {
            "mae": error.mean().item(),
            "rmse": error.square().mean().sqrt().item(),
            "nae": (error / relative_to).mean().item(),
            "sre": (error.square() / relative_to).mean().sqrt().item(),
            "threshold": threshold,
            **figures,
        }


def best_threshold(scores: Sequence[Tensor], counts: Tensor) -> float:
    """The score from which detections have to be counted for the lowest MAE, the highest one where several are equal.

    Args:
        scores: (n,) of each of I images.
        counts: (I,) true numbers.
    """
    # A further detection brings its image nearer to the true number, or, if there are as many already, farther off.
    ordered = [own.sort(descending=True).values for own in scores]
    steps = [(torch.arange(len(own)) >= count) * 2 - 1 for own, count in zip(ordered, counts.tolist(), strict=True)]
    score, order = torch.cat(ordered).sort(descending=True, stable=True)
    if not len(score):
        return 1.0
    change = torch.cat(steps)[order].cumsum(0)
    last = torch.cat([score[:-1] > score[1:], torch.ones(1, dtype=torch.bool)])  # equal scores come in together
    chosen = int(change[last].argmin())
    if change[last][chosen] >= 0:
        return float(torch.nextafter(score[0], score[0] + 1))  # counting nothing is best
    return float(score[last][chosen])
