"""Which parameter learns how fast, and when."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from trex2_lightning.config import AlignmentConfig, LossConfig, OptimConfig
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.training.optim import adamw, regroup, schedule


def model() -> nn.Module:
    parts = {
        "backbone": nn.ModuleDict({"model": nn.Linear(2, 2), "norms": nn.LayerNorm(2)}),
        "text_encoder": nn.ModuleDict({"projection": nn.Linear(2, 3), "tower": nn.Linear(2, 2)}),
        "decoder": nn.Linear(3, 3),
        "neck": nn.ReLU(),
    }
    return nn.ModuleDict(parts)


TOWERS = {"backbone": "backbone.model", "text": "text_encoder.tower"}


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
    for group, part in TOWERS.items():
        assert members[group] == {id(p) for p in net.get_submodule(part).parameters()}
    assert members["rest"] == {id(p) for p in net.parameters()} - members["backbone"] - members["text"]


def test_what_a_loss_learns_has_the_rate_of_the_rest_and_no_weight_decay() -> None:
    criterion = Criterion(LossConfig(alignment=AlignmentConfig(learned_temperature=True)))
    group = adamw(model(), OptimConfig(lr=3e-4), criterion).param_groups[-1]
    assert (group["name"], group["lr"], group["weight_decay"]) == ("loss", 3e-4, 0)
    assert [id(parameter) for parameter in group["params"]] == [id(criterion.log_scale)]
    for nothing in (Criterion(LossConfig()), criterion.requires_grad_(False)):
        assert adamw(model(), OptimConfig(), nothing).param_groups[-1]["name"] == "rest"


def test_frozen_parameters_are_in_no_group_and_a_frozen_part_has_none() -> None:
    net = model()
    net.get_submodule("backbone").requires_grad_(False)
    net.get_parameter("decoder.bias").requires_grad_(False)
    optimizer = adamw(net, OptimConfig())
    assert [group["name"] for group in optimizer.param_groups] == ["text", "rest"]
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 3]


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
    for part, rate in {"backbone.model": 1e-3, "text_encoder.tower": 2e-3, "text_encoder.projection": 1e-2}.items():
        moved = before[f"{part}.weight"] - net.get_parameter(f"{part}.weight")
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=1e-6)


# Checkpoints up to format 1, whose groups were whole parts


def former(net: nn.Module, config: OptimConfig) -> AdamW:
    """With the text encoder's projection in its tower's group, and the backbone's norms in the backbone's."""
    parts = {"backbone": "backbone.", "text": "text_encoder.", "rest": "decoder."}
    rates = {"backbone": config.lr_backbone, "text": config.lr_text, "rest": config.lr}
    groups = {
        part: [p for name, p in net.named_parameters() if name.startswith(prefix) and p.requires_grad]
        for part, prefix in parts.items()
    }
    return AdamW([{"params": group, "lr": rates[part], "name": part} for part, group in groups.items() if group])


@pytest.mark.parametrize("frozen", ["", "backbone.model"])
def test_a_former_optimizer_goes_on_with_each_parameter_s_moments(frozen: str) -> None:
    """A tower that is frozen had a group as long as something behind it is trained."""
    net, config = model(), OptimConfig(lr=1e-2, lr_backbone=1e-3, lr_text=2e-3, warmup_steps=4)
    if frozen:
        net.get_submodule(frozen).requires_grad_(False)
    old = former(net, config)
    scheduler = schedule(old, config, 100)
    for number, parameter in enumerate(net.parameters()):
        if parameter.requires_grad and number != 1:  # one that no iteration has used
            parameter.grad = torch.full_like(parameter, float(number))
    old.step()
    scheduler.step()
    moments = {parameter: dict(state) for parameter, state in old.state.items()}
    checkpoint = {"optimizer_states": [old.state_dict()], "lr_schedulers": [scheduler.state_dict()]}

    for _ in range(2):  # the second time it is of today's groups
        regroup(checkpoint, net)
    new = adamw(net, config)
    going_on = schedule(new, config, 100)
    new.load_state_dict(checkpoint["optimizer_states"][0])
    going_on.load_state_dict(checkpoint["lr_schedulers"][0])
    assert new.state.keys() == moments.keys()
    for parameter, state in moments.items():
        torch.testing.assert_close(dict(new.state[parameter]), state, rtol=0, atol=0)
    new.step()
    going_on.step()
    found = {group["name"]: group["lr"] for group in new.param_groups}
    expected = {"backbone": 7.5e-4, "text": 1.5e-3, "rest": 7.5e-3}
    assert found == pytest.approx({part: expected[part] for part in found})
    assert len(found) == (2 if frozen == "backbone.model" else 3)
