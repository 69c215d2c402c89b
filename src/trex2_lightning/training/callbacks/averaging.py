"""The exponential moving average of the weights, which is evaluated and saved."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class RampedAveraging(WeightAveraging):
    """An average that lies where the weights lie, with a decay that grows to its value.

    Lightning's own is built before the model moves to its device and stays behind, so that every step would copy all
    weights to the host. The decay of update n, from 0, is at most n / (n + 9): without that a run of 2,000 steps with a
    decay of 0.9998 is evaluated on weights that are two thirds those it started from. What is not trained is left as it
    is, to the bit.

    Args:
        decay: share of the average that stays in an update, less than 1.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def on_fit_start(self, _: Trainer, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)  # the number of updates stays with the host, which reads it

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """After an optimizer step, a kernel or two for all weights; no host waits for a device."""
        if trainer.global_step <= self._latest_update_step:
            return
        self._latest_update_step = trainer.global_step
        assert self._average_model is not None
        number = int(self._average_model.n_averaged)
        pairs = [
            (old.detach(), new.detach())
            for old, new in zip(_tensors(self._average_model.module), _tensors(pl_module), strict=True)
        ]
        update = get_ema_multi_avg_fn(min(self.decay, number / (number + 9)))
        update(*map(list, zip(*[pair for pair in pairs if pair[0].is_floating_point()], strict=True)), number)
        for old, new in pairs:
            if not old.is_floating_point():  # counters
                old.copy_(new)
        self._average_model.n_averaged += 1


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """What may change: parameters that are trained, and buffers."""
    return chain((parameter for parameter in module.parameters() if parameter.requires_grad), module.buffers())
