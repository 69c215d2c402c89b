"""How fast training is and how much memory it takes.

Lightning's `ThroughputMonitor` counts batches, synchronises the GPU at each of them and logs validation under steps
that run backwards; what is wanted here is one figure per optimizer step.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from trex2_lightning.ops.host import peak_resident

GIB = 2**30


class ResourceMonitor(Callback):
    """Logs, every `log_every_n_steps` optimizer steps:

    - `resources/seconds_per_step`, mean over these steps without the time of validation
    - `resources/images_per_second`, all devices together
    - `resources/memory_gib`, the first device's peak so far: allocated GPU memory, or resident memory on the CPU

    Args:
        total_batch: images per optimizer step over all devices.
    """

    def __init__(self, total_batch: int) -> None:
        self._total_batch = total_batch
        self._first_step = 0
        self._started = self._paused = 0.0  # seconds

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self._open_window(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        steps = trainer.global_step - self._first_step
        if steps == 0 or trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        seconds_per_step = (time.perf_counter() - self._started) / steps
        pl_module.log_dict(
            {
                "resources/seconds_per_step": seconds_per_step,
                "resources/images_per_second": self._total_batch / seconds_per_step,
                "resources/memory_gib": peak_memory(trainer.strategy.root_device) / GIB,
            }
        )
        self._open_window(trainer)

    def on_validation_start(self, *_: Any) -> None:
        self._paused = time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        self._started += time.perf_counter() - self._paused

    def _open_window(self, trainer: Trainer) -> None:
        self._first_step = trainer.global_step
        self._started = time.perf_counter()


def peak_memory(device: torch.device) -> int:
    """Bytes, so far: allocated GPU memory, or resident memory of this process; 0: nobody tells."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident()
