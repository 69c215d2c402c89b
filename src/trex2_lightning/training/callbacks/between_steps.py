"""When a run is saved: between two steps, also right after it has gone on, and where its figure is the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException


class LastAtSigterm(Callback):
    """Where a scheduler ends the run (SIGTERM), lets a single process finish its step, and saves `last.ckpt`.

    Several processes end with the batch that they are at, together, and save where that is the last of a step.

    Args:
        file: to write.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._asked = False

    def on_train_batch_end(
        self, trainer: Trainer, _module: LightningModule, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size == 1:  # Lightning looks at its mark after this
            self._asked |= trainer.received_sigterm
            is_done = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
            trainer._signal_connector.received_sigterm = self._asked and is_done

    def on_exception(self, trainer: Trainer, _: LightningModule, exception: BaseException) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.current
        between = done.ready == done.completed and done.completed % trainer.accumulate_grad_batches == 0
        if isinstance(exception, SIGTERMException) and trainer.training and between and done.completed:
            trainer.save_checkpoint(self.file)


class BestSoFar(ModelCheckpoint):
    """Knows what the best was also where the run's folder has moved since; Lightning's own would write a worse one."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert self.dirpath is not None
        place = str(Path(self.dirpath, f"{self.filename}.ckpt"))
        if Path(place).is_file():
            score = state_dict["best_model_score"]
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
