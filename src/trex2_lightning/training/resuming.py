"""What a run that goes on may have otherwise than before, and what is kept of how it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from trex2_lightning.config import Config, LoggingConfig, from_dict, save, to_dict
from trex2_lightning.data.inventory import SetAudit
from trex2_lightning.errors import InputError
from trex2_lightning.training.provenance import provenance_of

# Where a run and its data lie, how long it is, on what it is computed and what is told of it. The total batch stays, so
# that devices and the batch of each may differ. All else decides what is learned, or which checkpoint is the best.
MAY_CHANGE = {
    *("name", "output", "data.root", "data.batch_size", "data.num_workers", "eval.batch_size"),
    *(f"train.{key}" for key in ("max_steps", "val_every", "save_every", "accelerator", "devices", "nodes")),
    *(f"train.{key}" for key in ("compile", "checkpoint_activations", "calibrate")),
    *(f"logging.{field.name}" for field in fields(LoggingConfig)),
}


class Resumption(NamedTuple):
    """A run at the checkpoint that it goes on from."""

    path: Path  # of the checkpoint
    step: int  # optimizer steps that are done
    before: Config
    changed: dict[str, tuple[Any, Any]]  # settings before and now, by dotted key
    data: Mapping[str, Mapping[str, Any]]  # as provenance has it; none in checkpoints of earlier versions
    earlier: list[dict[str, Any]]  # see `DetectionModule.earlier`

    def __str__(self) -> str:
        others = [f"{key}={now} (it had {before})" for key, (before, now) in self.changed.items()]
        return f"{self.path}" + (f"; from here on: {', '.join(others)}" if others else "")

    def check_data(self, audits: Iterable[SetAudit]) -> None:
        """Raises InputError: a data set is another one than the run was trained on."""
        for one in audits:
            known = self.data.get(one.key)
            if known is not None and known["sha256"] != one.fingerprint:
                raise InputError(
                    f"{one.key} ({one.place}) is another data set than the run was trained on: its images, names or "
                    "boxes differ; give the folder of the same one by data.root=, or start a run of another name= from "
                    f"the weights by train.init_from={self.path}"
                )

    def note(self, folder: Path) -> None:
        """Keep the settings that held so far beside those that hold from now on."""
        if self.changed:
            save(self.before, folder / f"config_until_step_{self.step}.yaml")


def resumption(config: Config, checkpoint: dict[str, Any], path: Path) -> Resumption:
    """What differs between a run and the checkpoint that it is to go on from.

    Args:
        config: of the run, as it is told now.
        checkpoint: as `read_checkpoint` gives it.
        path: of the checkpoint.

    Raises:
        InputError: a setting differs that must not, a line for each; or the run is to end before where it is.
    """
    before, step = from_dict(checkpoint["config"]), int(checkpoint["global_step"])
    then, now = _flat(to_dict(before)), _flat(to_dict(config))
    keys = [key for key in now | then if now.get(key) != then.get(key)]
    if refused := [key for key in keys if key not in MAY_CHANGE]:
        told = "\n".join(f"{key}={now.get(key)}: a resumed run keeps its {then.get(key)}" for key in refused)
        raise InputError(
            f"{told}; give it as it was, or start a run of another name= from the weights by train.init_from={path}"
        )
    if "train.max_steps" in keys and config.train.max_steps <= step:
        raise InputError(
            f"train.max_steps={config.train.max_steps}: the run has done {step} of its {before.train.max_steps} steps: "
            "give more than it has done, or leave it as it was"
        )
    earlier = [*checkpoint.get("earlier", [])]
    if keys:
        earlier.append({"until": step, "settings": {key: then.get(key) for key in keys}})
    changed = {key: (then.get(key), now.get(key)) for key in keys}
    return Resumption(path, step, before, changed, provenance_of(checkpoint)[-1].get("data", {}), earlier)


def count_batches_anew(checkpoint: dict[str, Any], accumulate: int) -> bool:
    """The trainer counts batches, the stream optimizer steps: they differ where a step has more batches now.

    Args:
        checkpoint: of the trainer, changed in place.
        accumulate: batches of a step.

    Returns:
        Whether it was written before the evaluation of its step, if there was to be one.
    """
    loops = checkpoint["loops"]["fit_loop"]
    progress = loops["epoch_loop.batch_progress"]
    is_within = progress["total"]["completed"] < progress["total"]["processed"]
    done = checkpoint["global_step"] * accumulate
    for counts in (progress["total"], progress["current"]):
        counts.update(dict.fromkeys(("ready", "started", "processed", "completed"), done))
    # The step that is logged: Lightning counts it up only after the checkpoint of a step is written.
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]
    return bool(is_within)


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    """By their dotted keys."""
    values: dict[str, Any] = {}
    for name, value in settings.items():
        values |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return values
