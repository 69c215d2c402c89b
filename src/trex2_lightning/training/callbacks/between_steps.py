"""When a run is saved: between two optimizer steps, also right after it has gone on."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class BetweenSteps(ModelCheckpoint):
    """Saves when a step's last batch is done.

    Lightning's own does not know, in a run that has gone on, that its step was saved before, and saves it again after
    the first batch. What goes on from there has that batch twice, and its steps end at other batches.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
