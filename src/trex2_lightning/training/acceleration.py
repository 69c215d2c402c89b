"""What makes the same computation faster, for training, evaluation and prediction alike."""

from __future__ import annotations

import logging

import lightning as L
import torch
from lightning.pytorch import Callback

from trex2_lightning.config import TrainConfig
from trex2_lightning.models.compiling import compile_parts

log = logging.getLogger(__name__)


class Acceleration(Callback):
    """Sets up what `train.compile` and `train.float32_matmul_precision` say, before the first step.

    Args:
        train: the settings.
    """

    def __init__(self, train: TrainConfig) -> None:
        self._train = train

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Of whatever has a `detector`."""
        use_matmul_precision(self._train, trainer.strategy.root_device)
        if self._train.compile:
            log.info("compiling when a layer is first called: the first steps take minutes")
            compile_parts(pl_module.detector)  # type: ignore[arg-type]


def use_matmul_precision(train: TrainConfig, device: torch.device) -> None:
    """Let a GPU compute float32 products as `train.float32_matmul_precision` says, in the whole process.

    A CPU's are left as they are: fewer bits are no faster there, or give other results than elsewhere.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision(train.float32_matmul_precision)
