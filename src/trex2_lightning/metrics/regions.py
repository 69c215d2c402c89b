"""How often the right name is among the best for a region, overall and by category group (T-Rex2, section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trex2_lightning.metrics.detection import from_all_ranks, group_members

TOP = (1, 5)


class RegionResult(NamedTuple):
    """The classified boxes of one image."""

    image_id: int
    labels: Tensor  # (n,) int64, the true categories
    ranks: Tensor  # (n,) int64, how many other names are at least as likely


class RegionAccuracy:
    """Top-1 and top-5 accuracy over all boxes; an image that several ranks evaluated counts once.

    Args:
        groups: group of each category, "" where the data set has none.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        self._members = group_members(groups)
        self._results: dict[int, RegionResult] = {}

    def update(self, results: Iterable[RegionResult]) -> None:
        """Add images."""
        for result in results:
            self._results[result.image_id] = RegionResult(result.image_id, result.labels.cpu(), result.ranks.cpu())

    def compute(self) -> dict[str, float]:
        """`top1`, `top5`, and for each group `top1/GROUP` and `top5/GROUP`; every rank must call it.

        A group's figure is over the boxes of its categories, NaN where there are none.
        """
        results = from_all_ranks(self._results)
        nothing = torch.zeros(0, dtype=torch.int64)
        labels = torch.cat([nothing, *(result.labels for result in results)])
        ranks = torch.cat([nothing, *(result.ranks for result in results)])
        chosen = {f"/{group}": torch.isin(labels, torch.tensor(ids)) for group, ids in self._members.items()}
        chosen = {"": torch.ones_like(labels, dtype=torch.bool)} | chosen
        return {
            f"top{top}{suffix}": (ranks[boxes] < top).double().mean().item()
            for suffix, boxes in chosen.items()
            for top in TOP
        }

    def reset(self) -> None:
        """Forget all images."""
        self._results = {}
