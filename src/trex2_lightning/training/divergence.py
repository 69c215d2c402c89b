"""A run whose loss or gradient is not finite ends at once, says with what, and saves nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lightning import Trainer
from torch import Tensor

from trex2_lightning.errors import InputError
from trex2_lightning.losses.matcher import NotFiniteError
from trex2_lightning.ops.distributed import from_every_rank
from trex2_lightning.structures import Batch


class FiniteSteps:
    """Looks at the losses of a rank's batches and at the gradient of all ranks, which tells whether any is not finite.

    A step's numbers go to the host while the device goes on. They are looked at when the host has waited for the device
    anyway: in the next step, or before an evaluation or a checkpoint.
    """

    def __init__(self) -> None:
        self._batches: list[_Seen] = []  # of the step that is being made
        self._step: list[_Seen] = []  # the last that was made
        self._norm: Tensor | None = None  # of its gradient

    def add(self, batch: Batch, loss: Tensor) -> None:
        """A batch of the step that is being made, and its loss ()."""
        self._batches.append(_Seen(_named(batch), _to_host(loss)))

    def end(self, norm: Tensor) -> None:
        """The step is made with a gradient of that norm ()."""
        self._step, self._batches, self._norm = self._batches, [], _to_host(norm)

    def check(self, trainer: Trainer | None) -> None:
        """Raises InputError: the last step's gradient is not finite; all ranks together."""
        if trainer is None or self._norm is None or self._norm.isfinite():
            return
        wrong = [seen.what for seen in self._step if not seen.loss.isfinite()]
        if found := [what for ranks in from_every_rank(wrong) for what in ranks]:
            told = f"the loss is not finite with {'; '.join(found)}"
        else:
            told = f"the gradient is not finite with {'; '.join(seen.what for seen in self._step)}"
        raise InputError(f"step {trainer.global_step:,}: {told}; {kept_before(trainer)}")

    def blame(self, trainer: Trainer, batch: Batch, error: NotFiniteError) -> InputError:
        """The error of a batch that could not be learned from, or that of the step before, which has spoilt it."""
        self.check(trainer)
        return InputError(f"step {trainer.global_step + 1:,}, {_named(batch)}: {error}; {kept_before(trainer)}")


class _Seen(NamedTuple):
    what: str
    loss: Tensor


def kept_before(trainer: Trainer) -> str:
    """What a run that has diverged can go on from."""
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    last = Path(folder or "", "last.ckpt")
    if not folder or not last.is_file():
        return "nothing was saved before it: set a lower optim.lr or optim.clip_norm, or train.precision=32-true"
    return (
        f"it is not saved, and {last} is from before it: go on from that by train.init_from= with a lower optim.lr or "
        "optim.clip_norm, or train.precision=32-true"
    )


def _named(batch: Batch) -> str:
    ids = ", ".join(str(target.image_id) for target in batch.targets)
    return f"images {ids} of {f'data.sets.{batch.data_set}' if batch.data_set else 'data.train'}"


def _to_host(number: Tensor) -> Tensor:
    """Of a GPU into pinned memory, where it is once the host has waited for what comes later."""
    return number.detach().to("cpu", non_blocking=True)
