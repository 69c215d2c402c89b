"""Boxes that are given are named by the names most similar to them."""

from __future__ import annotations

import pytest
import torch
from glass import Glass, batch_of

from trex2_lightning.metrics.regions import RegionAccuracy
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.prompting.protocols import Text
from trex2_lightning.prompting.region_classifier import RegionClassifier
from trex2_lightning.structures import FeatureMaps, Prompts, PromptTokens, Targets


class Mirror(Glass):
    """Names are unit vectors; a box is seen as its own four coordinates."""

    def encode_prompts(self, prompts: Prompts, reference: FeatureMaps | None = None) -> PromptTokens:
        if prompts.exemplars is None:
            return from_vectors(torch.eye(4)[None])
        assert prompts.exemplars.boxes.shape[2] == 1, "each box alone"
        return from_vectors(prompts.exemplars.boxes[:, :, 0])


def classified(*images: tuple[list[int], list[list[float]]]) -> tuple[list[int], dict[str, float]]:
    """Ranks of all boxes and the figures."""
    targets = [
        (Targets(torch.tensor(labels).long(), torch.tensor(boxes).view(-1, 4), i), 0.5)
        for i, (labels, boxes) in enumerate(images)
    ]
    batch, accuracy, detector = batch_of(*targets), RegionAccuracy(["rare", "rare", "novel", ""]), Mirror()
    regions = RegionClassifier(Text(), accuracy)
    regions.start()
    regions.update(detector, batch, detector.encode_image(batch.images))  # type: ignore[arg-type]
    ranks = [rank for result in accuracy._results.values() for rank in result.ranks.tolist()]
    return ranks, accuracy.compute()


def test_a_region_is_named_by_the_most_similar_name() -> None:
    best, third, last = [0.9, 0.2, 0.1, 0.3], [0.3, 0.4, 0.1, 0.2], [0.1, 0.6, 0.5, 0.4]
    ranks, figures = classified(([0, 3], [best, third]), ([], []), ([0], [last]))
    assert ranks == [0, 2, 3]
    assert figures["top1"] == pytest.approx(1 / 3)
    assert figures["top5"] == 1
    assert figures["top1/rare"] == 0.5


def test_names_that_are_equally_likely_are_no_answer() -> None:
    assert classified(([1], [[0.5, 0.5, 0.5, 0.5]]))[0] == [3]
