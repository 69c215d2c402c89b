"""Accuracy by hand."""

import math

import pytest
import torch

from trex2_lightning.metrics.regions import RegionAccuracy, RegionResult

GROUPS = ("frequent", "frequent", "rare", "novel")


def result(image_id: int, labels: list[int], ranks: list[int]) -> RegionResult:
    return RegionResult(image_id, torch.tensor(labels).long(), torch.tensor(ranks).long())


def test_every_box_counts_the_same_whatever_its_category() -> None:
    accuracy = RegionAccuracy(GROUPS)
    accuracy.update([result(1, [0, 0, 0, 2], [0, 0, 1, 7]), result(2, [], [])])
    accuracy.update([result(3, [1], [4])])
    figures = accuracy.compute()
    assert {name: value for name, value in figures.items() if "novel" not in name} == pytest.approx(
        {"top1": 2 / 5, "top5": 4 / 5}
        | {"top1/seen": 2 / 5, "top5/seen": 4 / 5, "top1/frequent": 2 / 4, "top5/frequent": 1}
        | {"top1/rare": 0, "top5/rare": 0}
    )
    assert math.isnan(figures["top1/novel"])
    assert math.isnan(figures["top5/novel"])


def test_an_image_counts_once_and_after_a_reset_not_at_all() -> None:
    accuracy = RegionAccuracy(["", ""])
    accuracy.update([result(1, [0], [0]), result(2, [1], [9])])
    accuracy.update([result(1, [0], [0])])
    assert accuracy.compute() == {"top1": 0.5, "top5": 0.5}
    accuracy.reset()
    assert math.isnan(accuracy.compute()["top1"])
