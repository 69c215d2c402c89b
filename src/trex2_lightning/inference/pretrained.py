"""A detector by whatever names it: a checkpoint, a run's folder, a folder or repository of the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trex2_lightning.config import Config, check_harmless
from trex2_lightning.models.hub.settings import hub_folder, model_config, weights_bytes
from trex2_lightning.models.outline import outlined
from trex2_lightning.training.build import build_module
from trex2_lightning.training.checkpoint import checkpoint_of, load_checkpoint
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.published import is_published


def load_pretrained(what: str | Path) -> tuple[Config, DetectionModule]:
    """The settings and the module, frozen by nobody yet, in evaluation mode.

    Args:
        what: a checkpoint; the folder of a run, for its best one; or as a folder in the hub's format, or a repository
            there, what `trex2 push` has published, or a Grounding DINO or MM-Grounding-DINO.

    Raises:
        InputError: there is nothing of that name, or it is none of these.
    """
    checkpoint = checkpoint_of(what)
    if checkpoint is not None:
        return load_checkpoint(checkpoint)
    name, folder = Path(what).resolve().name, hub_folder(str(what))
    if is_published(folder):
        config, module = load_checkpoint(folder)
        return replace(config, name=name), module
    model = model_config(str(folder))
    config = Config(name=name, model=model)
    check_harmless(config)
    with outlined(weights_bytes(str(folder)), what):
        build_module(config)
    config.model = replace(model, init_from=str(folder))
    return config, build_module(config).eval()
