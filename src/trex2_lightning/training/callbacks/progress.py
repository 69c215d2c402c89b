"""How far a run is: a bar on a terminal, and lines of the log where there is none, as in a job's file."""

from __future__ import annotations

import logging
import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

LINES = 20  # of a whole training
log = logging.getLogger(__name__)


def progress(refresh_rate: int = 1) -> Callback:
    """The one that fits; on stderr, as results go to stdout."""
    if sys.stderr.isatty():
        return RichProgressBar(refresh_rate, console_kwargs={"stderr": True})
    return ProgressLines()


class ProgressLines(Callback):
    """Logs the step and the loss of its last batch, `LINES` times in a training."""

    def __init__(self) -> None:
        self._told = 0

    def on_train_start(self, trainer: Trainer, _module: LightningModule) -> None:
        self._told = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        step, most = trainer.global_step, trainer.max_steps
        if trainer.is_global_zero and step > self._told and (step % max(most // LINES, 1) == 0 or step == most):
            self._told = step
            log.info("step %d of %d, loss %.3g", step, most, trainer.callback_metrics["loss"])
