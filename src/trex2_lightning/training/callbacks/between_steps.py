"""When a run is saved: between two steps, also right after it has gone on, and where its figure is the best."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.evaluation_loop import RestartStage
from lightning.pytorch.utilities.exceptions import SIGTERMException

from trex2_lightning.ops.distributed import any_rank

log = logging.getLogger(__name__)


def hear_sigterm(trainer: Trainer, handler: Callable[..., None]) -> None:
    """Have SIGTERM call this in place of Lightning's handler.

    In that one ranks exchange what they heard wherever they are, so that each may wait for another that waits for it.
    """
    trainer._signal_connector._sigterm_notifier_fn = handler  # type: ignore[method-assign]


def end_at_once(*_: Any) -> None:
    """What SIGTERM does where nothing is to be saved."""
    raise SIGTERMException


class LastWhenStopped(Callback):
    """Where a scheduler (SIGTERM) or a person (Ctrl-C) ends the run, finishes the step, saves `last.ckpt` and ends it.

    Of several processes it is enough that one hears SIGTERM: all end with the same step. Ctrl-C ends them at once, for
    each hears of it at another place, as it does outside of steps and when it comes again. An evaluation within the run
    is ended by SIGTERM at once where the process is single, and else done before.

    Args:
        file: to write.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.interrupted = False  # by a person
        self._asked = False  # by a scheduler
        self._ears: Any = None  # what heard Ctrl-C before

    def setup(self, trainer: Trainer, _module: LightningModule, stage: str) -> None:  # noqa: ARG002
        hear_sigterm(trainer, self._hear_sigterm)

    def on_train_start(self, trainer: Trainer, _: LightningModule) -> None:
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._ears = signal.signal(signal.SIGINT, lambda *_: self._hear(trainer))

    def _hear_sigterm(self, *_: Any) -> None:
        self._asked = True

    def _hear(self, trainer: Trainer) -> None:
        self._be_deaf()
        if not trainer.training:
            raise KeyboardInterrupt
        log.warning("stopping when the step is done; Ctrl-C again stops at once, without a checkpoint of it")
        self.interrupted = True

    def on_train_batch_end(
        self, trainer: Trainer, _module: LightningModule, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        is_done = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if is_done and trainer.global_step < trainer.max_steps and any_rank(self._asked or self.interrupted):
            trainer.save_checkpoint(self.file)
            raise SIGTERMException

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self._asked and trainer.world_size == 1:
            raise SIGTERMException

    def on_exception(self, *_: Any) -> None:
        self._be_deaf()

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
    """Saves when a step's last batch is done, and sees to it that what goes on from there goes on as it would have.

    Lightning's own does not know, in a run that has gone on, that its step was saved before, and saves it again after
    the first batch. What goes on from there has that batch twice, and its steps end at other batches. And a run that
    goes on from a step whose evaluation was broken off would leave it out.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if pl_module.is_unevaluated:  # Lightning knows of evaluations alone that it saved within
            evaluation = trainer.fit_loop.epoch_loop.val_loop
            evaluation.restarting, evaluation._restart_stage = False, RestartStage.RESTARTED_MID_EVALUATION

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_done = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # Nothing of a run goes on behind its last step: that is saved when it has been evaluated.
        is_last = trainer.global_step >= trainer.max_steps
        is_evaluated = (trainer.fit_loop.total_batch_idx + 1) % (trainer.val_check_batch or 1) == 0
        if is_done and not (is_last and is_evaluated):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
