"""Which parameter learns how fast, and when."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trex2_lightning.config import OptimConfig
from trex2_lightning.training.optim import adamw, schedule


def model() -> nn.Module:
    parts = {
        "backbone": nn.Linear(2, 2),
        "text_encoder": nn.Linear(2, 3),
        "decoder": nn.Linear(3, 3),
        "neck": nn.ReLU(),
    }
    return nn.ModuleDict(parts)


def rates(max_steps: int, steps: int | None = None, **values: float) -> list[float]:
    """The rate of the decoder at each optimizer step."""
    optimizer = adamw(model(), OptimConfig(lr=1.0, **values))
    scheduler = schedule(optimizer, OptimConfig(lr=1.0, **values), max_steps)
    found = []
    for _ in range(steps or max_steps):
        found.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_every_part_has_its_rate() -> None:
    net = model()
    optimizer = adamw(net, OptimConfig(lr=3e-4, lr_backbone=1e-5, lr_text=2e-5, weight_decay=0.1))
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert {name: group["lr"] for name, group in groups.items()} == {"backbone": 1e-5, "text": 2e-5, "rest": 3e-4}
    assert {group["weight_decay"] for group in groups.values()} == {0.1}
    members = {name: {id(p) for p in group["params"]} for name, group in groups.items()}
    for group, part in {"backbone": "backbone", "text": "text_encoder", "rest": "decoder"}.items():
        assert members[group] == {id(p) for p in net.get_submodule(part).parameters()}


def test_frozen_parameters_are_in_no_group_and_a_frozen_part_has_none() -> None:
    net = model()
    net.get_submodule("backbone").requires_grad_(False)
    net.get_parameter("decoder.bias").requires_grad_(False)
    optimizer = adamw(net, OptimConfig())
    assert [group["name"] for group in optimizer.param_groups] == ["text", "rest"]
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 1]


def test_warm_up_then_constant_then_a_linear_fall() -> None:
    found = rates(10, warmup_steps=4, decay_share=0.4, final_share=0.0)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_the_fall_ends_at_the_final_share_and_stays_there() -> None:
    found = rates(10, steps=13, warmup_steps=1, decay_share=0.5, final_share=0.2)
    assert found == pytest.approx([1, 1, 1, 1, 1, 1, 0.84, 0.68, 0.52, 0.36, 0.2, 0.2, 0.2])


def test_no_warm_up_and_no_fall() -> None:
    assert rates(5, warmup_steps=0, decay_share=0.0) == [1, 1, 1, 1, 1]


def test_all_groups_follow_the_schedule() -> None:
    config = OptimConfig(lr=1e-4, lr_backbone=1e-5, lr_text=2e-5, warmup_steps=2, decay_share=0)
    optimizer = adamw(model(), config)
    scheduler = schedule(optimizer, config, 10)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-6, 1e-5, 5e-5])
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-5, 2e-5, 1e-4])


def test_an_optimizer_step_moves_by_the_rate() -> None:
    """AdamW's first step is the rate itself in each coordinate."""
    net = model()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = adamw(net, OptimConfig(lr=1e-2, lr_backbone=1e-3, lr_text=2e-3, weight_decay=0))
    sum(p.sum() for p in net.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    for part, rate in {"backbone": 1e-3, "text_encoder": 2e-3, "decoder": 1e-2}.items():
        moved = before[f"{part}.weight"] - net.get_parameter(f"{part}.weight")
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=1e-6)
