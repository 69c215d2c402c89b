"""How the trainer writes a checkpoint: a process that is killed meanwhile leaves the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there once it is whole.

    Lightning writes to the machine's temporary folder. Where that is on another disk than the run, as on a cluster, the
    move is a copy over the checkpoint before, and a job that is killed in it has neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, **_: Any) -> None:  # type: ignore[override]
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.part")
        torch.save(checkpoint, part)
        part.replace(place)
