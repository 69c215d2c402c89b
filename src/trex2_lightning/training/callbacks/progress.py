"""How far a run is: a bar on a terminal, and lines of the log where there is none, as in a job's file."""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

log = logging.getLogger(__name__)

BESIDE = re.compile(r"val/\w+/ap$")  # of what val is asked with too


def progress(refresh_rate: int = 1) -> Callback:
    """The one that fits; on stderr, as results go to stdout."""
    if sys.stderr.isatty():
        return RichProgressBar(refresh_rate, console_kwargs={"stderr": True})
    return LogLines()


class LogLines(Callback):
    """Logs step, loss, speed and the time left every `log_every_n_steps` optimizer steps, and AP after a validation."""

    def __init__(self) -> None:
        self._first_step = self._told = 0
        self._started = 0.0  # seconds; moved by what validation takes
        self._paused = 0.0

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self._first_step = self._told = trainer.global_step
        self._started = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, _module: LightningModule, outputs: Any, *_: Any) -> None:
        step, last = trainer.global_step, trainer.max_steps
        is_due = step % trainer.log_every_n_steps == 0 or step == last  # type: ignore[attr-defined]
        if step == self._told or not is_due or not trainer.is_global_zero:
            return
        self._told = step
        pace = (time.monotonic() - self._started) / (step - self._first_step)
        left = duration(pace * (last - step))
        log.info("step %d of %d: loss %.3g, %.3g s a step, %s left", step, last, float(outputs["loss"]), pace, left)

    def on_validation_start(self, *_: Any) -> None:
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self._started += time.monotonic() - self._paused
        ap = trainer.callback_metrics.get("val/ap")
        if ap is not None and not trainer.sanity_checking and trainer.is_global_zero:
            others = {
                name.split("/")[1]: value for name, value in trainer.callback_metrics.items() if BESIDE.match(name)
            }
            told = "".join(f", with {name} {float(value):.3f}" for name, value in others.items())
            log.info("step %d of %d: AP on val %.3f%s", trainer.global_step, trainer.max_steps, float(ap), told)


def duration(seconds: float) -> str:
    """To the second below two minutes, to the minute below two hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
