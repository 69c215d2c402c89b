"""How the trainer writes a checkpoint: a process that is killed meanwhile leaves the one before."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import Tensor

from trex2_lightning.errors import InputError, reason_of

# Of a checkpoint, what only a run that goes on needs; the weights that are not averaged are among it.
TO_RESUME = (
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "callbacks",
    "current_model_state",
    "averaging_state",
    "memory_bank",
)


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there once it is whole.

    Lightning writes to the machine's temporary folder. Where that is on another disk than the run, as on a cluster, the
    move is a copy over the checkpoint before, and a job that is killed in it has neither. A machine that fails has
    either of them too, as the file is on the disk before it is moved.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, **_: Any) -> None:  # type: ignore[override]
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.part")
        try:
            torch.save(checkpoint, part)
            with part.open("r+b") as file:  # Windows syncs what may be written alone
                os.fsync(file.fileno())
            part.replace(place)
        except (OSError, RuntimeError) as error:
            reason = _reason(part, error)
            with suppress(OSError):  # PyTorch's writer has it open until the error is gone, and the log needs its room
                os.truncate(part, 0)
            part.unlink(missing_ok=True)
            kept = "what was there before is kept" if place.is_file() else "there was none before"
            goes_on = "go on with --resume" if place.with_name("last.ckpt").is_file() else "start it again"
            raise InputError(f"{place}: cannot be written ({reason}); {kept}: make room, and {goes_on}") from error


class RunCheckpointIO(WholeCheckpointIO):
    """Of `best.ckpt` the weights alone are kept, and of `last.ckpt` the one before it too, as `previous.ckpt`.

    `ModelCheckpoint(save_weights_only=True)` would leave out callbacks, and so take the weights that are not averaged.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last_step = -1  # of the `last.ckpt` that this process has written

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, **options: Any) -> None:  # type: ignore[override]
        place = Path(path)
        if strange := not_finite(checkpoint.get("state_dict", {})):
            raise InputError(
                f"step {checkpoint['global_step']:,}: training has diverged, {strange} is not finite any more, so "
                f"{place} is not written; what was there before is kept: set a lower optim.lr and go on from it by "
                "train.init_from="
            )
        if place.name == "best.ckpt":
            checkpoint = {name: value for name, value in checkpoint.items() if name not in TO_RESUME}
        if place.name == "last.ckpt":
            # After an evaluation at a step that it is saved at anyway it is written twice.
            # A broken one, that a run goes on in place of, does not take the place of the whole one before it.
            if zipfile.is_zipfile(place) and checkpoint["global_step"] != self._last_step:
                _keep(place, place.with_name("previous.ckpt"))
            self._last_step = checkpoint["global_step"]
        super().save_checkpoint(checkpoint, place, **options)


def not_finite(state: Mapping[str, Tensor]) -> str:
    """The name of a tensor that has a number which is none; "": all have numbers alone."""
    floats = ((name, tensor) for name, tensor in state.items() if torch.is_floating_point(tensor))
    return next((name for name, tensor in floats if not tensor.isfinite().all()), "")


def _reason(part: Path, error: Exception) -> str:
    """What the system says; of a full disk PyTorch's writer says that it is not at the place where it should be."""
    try:
        with part.open("ab") as file:
            file.write(bytes(2**20))
            os.fsync(file.fileno())
    except OSError as own:
        return reason_of(own)
    return reason_of(error)


def _keep(place: Path, copy: Path) -> None:
    """At no moment is `place` not there, nor `copy` half written."""
    part = copy.with_name(f"{copy.name}.part")
    part.unlink(missing_ok=True)
    try:
        part.hardlink_to(place)
    except OSError:  # a file system without links
        shutil.copy2(place, part)
    part.replace(copy)
