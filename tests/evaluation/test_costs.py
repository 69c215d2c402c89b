"""Costs: operations known on paper, and what grows with the number of names in which cell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from trex2_lightning.config import load
from trex2_lightning.evaluation import costs
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.detector import PromptedDetector

TINY = Path(__file__).parents[1] / "tiny.yaml"
NAMES = ("red star", "blue ring", "green moon")


def detector(granularity: str, fusion: str) -> PromptedDetector:
    overrides = [f"model.granularity={granularity}", f"model.fusion={fusion}", "model.max_tokens=64"]
    return build_detector(load(TINY, overrides).model)


def test_operations_of_the_text_encoder_are_those_on_paper() -> None:
    """One layer of width 32 over 4 tokens a name (two words, start and end): 2 x multiply-adds."""
    tokens, width = 4 * len(NAMES), 32
    layer = tokens * (3 + 1 + 4 + 4) * width**2  # attention's four projections, feed-forward of four times the width
    attention = len(NAMES) * 2 * 4 * 4 * width
    pooled = len(NAMES) * 2 * width**2  # the tower's projection and the detector's
    found = costs.gflops(detector("phrase", "late"), NAMES, 64)
    assert found.prompt == pytest.approx(2e-9 * (layer + attention + pooled), rel=1e-6)


def test_what_is_cached_is_what_the_interface_says() -> None:
    few, many = (costs.vocabulary(NAMES, count) for count in (4, 20))
    cells = {
        (granularity, fusion): [costs.gflops(detector(granularity, fusion), names, 64) for names in (few, many)]
        for granularity in ("phrase", "word")
        for fusion in ("late", "early")
    }
    for one, other in cells.values():
        assert one.image == other.image
        assert other.prompt == pytest.approx(5 * one.prompt, rel=1e-6)
    for granularity in ("phrase", "word"):
        late, early = cells[granularity, "late"], cells[granularity, "early"]
        assert late[0].image > early[0].image  # its encoder runs for no prompt
        assert late[0].decode < early[0].decode
        growth = [cell[1].decode - cell[0].decode for cell in (late, early)]
        assert 0 < growth[0] < growth[1]
    assert cells["word", "early"][1].decode > cells["phrase", "early"][1].decode


def test_more_tokens_than_one_pass_takes_are_counted_in_all_passes() -> None:
    one = detector("word", "early")
    inside, beyond = (costs.gflops(one, costs.vocabulary(NAMES, count), 64).decode for count in (21, 42))
    assert beyond == pytest.approx(2 * inside, rel=0.05)


def test_latency_is_of_three_steps_and_leaves_the_detector_as_it_was() -> None:
    one = detector("phrase", "late")
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    found = costs.latency(one, NAMES, 64, min_seconds=0.001)
    assert min(found) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.state_dict().items())


def test_parameters_and_vocabularies() -> None:
    assert costs.num_parameters(nn.Linear(3, 2)) == 8
    assert costs.vocabulary(("a", "b"), 5) == ("a", "b", "a", "b", "a")
