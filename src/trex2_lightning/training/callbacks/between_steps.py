"""When a run is saved: between two steps, also right after it has gone on, and where its figure is the best."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

log = logging.getLogger(__name__)


class LastWhenStopped(Callback):
    """Where a scheduler (SIGTERM) or a person (Ctrl-C) ends the run, lets a single process finish its step, and saves
    `last.ckpt`.

    Several processes end with the batch that they are at, together, and save where that is the last of a step; Ctrl-C
    ends them at once, for each hears of it at another place, as it does outside of steps and when it comes again.

    Args:
        file: to write.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.interrupted = False  # by a person
        self._asked = False
        self._ears: Any = None  # what heard Ctrl-C before

    def on_train_start(self, trainer: Trainer, _: LightningModule) -> None:
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._ears = signal.signal(signal.SIGINT, lambda *_: self._hear(trainer))

    def _hear(self, trainer: Trainer) -> None:
        self._be_deaf()
        if not trainer.training:
            raise KeyboardInterrupt
        log.warning("stopping when the step is done; Ctrl-C again stops at once, without a checkpoint of it")
        self.interrupted = True

    def on_train_batch_end(
        self, trainer: Trainer, _module: LightningModule, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size == 1:  # Lightning looks at its mark after this
            self._asked |= trainer.received_sigterm or self.interrupted
            is_done = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
            trainer._signal_connector.received_sigterm = self._asked and is_done

    def on_exception(self, trainer: Trainer, _: LightningModule, exception: BaseException) -> None:
        self._be_deaf()
        done = trainer.fit_loop.epoch_loop.batch_progress.current
        between = done.ready == done.completed and done.completed % trainer.accumulate_grad_batches == 0
        if isinstance(exception, SIGTERMException) and trainer.training and between and done.completed:
            trainer.save_checkpoint(self.file)

    def on_train_end(self, *_: Any) -> None:
        self._be_deaf()

    def _be_deaf(self) -> None:
        if self._ears is not None:
            signal.signal(signal.SIGINT, self._ears)
            self._ears = None


class BestSoFar(ModelCheckpoint):
    """Knows what the best was also where the run's folder has moved since; Lightning's own would write a worse one."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert self.dirpath is not None
        place = str(Path(self.dirpath, f"{self.filename}.ckpt"))
        score = state_dict["best_model_score"]
        if score is not None and Path(place).is_file():
            paths = dict.fromkeys(("best_model_path", "kth_best_model_path", "last_model_path"), place)
            super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": {place: score}})


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
