"""What a preflight sees: gradients to the bit, and a clock that the test turns itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trex2_lightning.structures import Batch, Images, Prompts, Targets
from trex2_lightning.training.callbacks import preflight_watch
from trex2_lightning.training.callbacks.preflight_watch import PreflightWatch, gradient_sums


def test_gradients_are_compared_to_the_bit() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Linear(30, 1).bfloat16())
    module[1].bias.requires_grad_(False)
    module[0](torch.rand(5, 40)).square().sum().backward()
    module[1](torch.rand(5, 30).bfloat16()).sum().backward()
    module[0].bias.grad = None
    before = gradient_sums(module)
    assert before == gradient_sums(module)
    assert {name: bool(total) for name, total in before.items()} == {
        "0.weight": True,
        "0.bias": False,  # without a gradient
        "1.weight": True,
    }
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            value = parameter.grad.view(-1)[7]
            value.copy_(
                torch.nextafter(value.float(), torch.tensor(9.0)) if value.dtype == torch.float32 else value * 1.01
            )
            assert gradient_sums(module) == before | {name: gradient_sums(module)[name]}
            assert gradient_sums(module) != before, name
            before = gradient_sums(module)


def test_steps_are_timed_behind_the_widest_and_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches a step, each 10 s of waiting and then 1 to 6 s of work."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(preflight_watch.time, "perf_counter", lambda: clock.now)
    images = Images(torch.zeros(2, 3, 32, 64), torch.ones(2, 32, 64, dtype=torch.bool), torch.zeros(2, 2))
    targets = (Targets(torch.zeros(3, dtype=torch.long), torch.zeros(3, 4), 1),) * 2
    batch = Batch(images, Prompts(("x",)), targets)
    watch = PreflightWatch(1)
    device = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(global_step=0, accumulate_grad_batches=2, strategy=device)
    for number, seconds in enumerate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]):
        clock.now += 10
        watch.on_train_batch_start(trainer, None, batch, number)  # type: ignore[arg-type]
        clock.now += seconds
        trainer.global_step = (number + 1) // 2
        watch.on_train_batch_end(trainer, None, None, batch, number)  # type: ignore[arg-type]
    assert watch.step_seconds == {"text": 9.0}  # the median of 3 + 4 and 5 + 6
    assert watch.kinds == {"text": 3}
    assert str(watch.largest) == "2 images padded to 32 x 64, up to 3 boxes, text"
