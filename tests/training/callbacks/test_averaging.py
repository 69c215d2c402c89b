"""The average of the weights: how fast it follows, and where it lies."""

from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import pytest
import torch

from trex2_lightning.training.callbacks.averaging import RampedAveraging


class OneWeight(L.LightningModule):
    """A weight of one number, and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def averages(decay: float, values: list[float]) -> list[float]:
    """After each of the optimizer steps, which leave the weight at these values."""
    module, callback = OneWeight(), RampedAveraging(decay)
    callback.setup(None, module, "fit")
    callback.on_fit_start(None, module)
    found = []
    for step, value in enumerate(values, start=1):
        module.weight.data.fill_(value)
        module.count.fill_(step)
        for _ in range(2):  # two batches of one optimizer step count once
            callback.on_train_batch_end(SimpleNamespace(global_step=step), module)
        found.append(callback._average_model.module.weight.item())
        assert callback._average_model.module.count == step
    return found


def test_early_updates_follow_the_weights_and_late_ones_have_the_decay() -> None:
    expected = [5.0, 5 * 0.1 + 1 * 0.9]
    expected.append(expected[-1] * 2 / 11 + 3 * 9 / 11)
    assert averages(0.9998, [5.0, 1.0, 3.0]) == pytest.approx(expected)
    assert averages(0.05, [5.0, 1.0, 3.0]) == pytest.approx([5.0, 5 * 0.05 + 0.95, (5 * 0.05 + 0.95) * 0.05 + 3 * 0.95])


def test_a_run_of_2000_steps_is_not_its_start() -> None:
    """Of 0.9998 alone two thirds of the average would be the weights that it started from."""
    assert averages(0.9998, [0.0, *[1.0] * 1999])[-1] > 0.99


def test_the_average_lies_where_the_weights_lie_and_its_count_with_the_host() -> None:
    module, callback = OneWeight(), RampedAveraging(0.9)
    callback.setup(None, module, "fit")
    module.to("meta")
    callback.on_fit_start(None, module)
    assert {x.device.type for x in callback._average_model.module.state_dict().values()} == {"meta"}
    assert callback._average_model.n_averaged.device.type == "cpu"


def test_what_is_not_trained_is_left_as_it_is_to_the_bit() -> None:
    """An average that stays for the most part makes a negative zero positive."""
    module, callback = OneWeight(), RampedAveraging(0.9)
    module.weight.requires_grad_(False).fill_(-0.0)
    module.trained = torch.nn.Parameter(torch.ones(1))
    callback.setup(None, module, "fit")
    callback.on_fit_start(None, module)
    for step in range(1, 30):
        callback.on_train_batch_end(SimpleNamespace(global_step=step), module)
    assert callback._average_model.module.weight.signbit()
