"""Checkpoints: a run rebuilt from its file, and weights to start from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trex2_lightning.config import Config, from_dict, migrate
from trex2_lightning.errors import InputError
from trex2_lightning.training.build import build_module
from trex2_lightning.training.module import DetectionModule

log = logging.getLogger(__name__)


def load_checkpoint(path: Path) -> tuple[Config, DetectionModule]:
    """The run of a checkpoint, rebuilt from the file alone; weights are the averaged ones where EMA was on.

    Raises:
        InputError: no such file, not a checkpoint of this project, or its weights do not fit its configuration.
    """
    checkpoint = read_checkpoint(path)
    config = from_dict(checkpoint["config"])
    model = config.model
    weights = (model.backbone.weights, model.text.pretrained, model.init_from)
    model.backbone.weights = model.text.pretrained = model.init_from = ""  # all weights come from the checkpoint
    module = build_module(config)
    model.backbone.weights, model.text.pretrained, model.init_from = weights
    load_state(module, checkpoint["state_dict"], path)
    module.visual_trained = checkpoint["visual_trained"]
    return config, module.eval()


def resume_from(module: DetectionModule, config: Config, path: Path) -> None:
    """Start `module` from the weights of a run that goes on; its optimizer keeps the rates that it has.

    Raises:
        InputError: as `load_checkpoint`, or other rates are told.
    """
    checkpoint = read_checkpoint(path)
    before = from_dict(checkpoint["config"]).optim
    for key in ("lr", "lr_backbone", "lr_text", "weight_decay"):
        told, kept = getattr(config.optim, key), getattr(before, key)
        if told != kept:
            raise InputError(
                f"optim.{key}={told}: a resumed run keeps its {kept}; leave it out, or start a run of another name= "
                "from its weights by train.init_from=FILE"
            )
    load_state(module, checkpoint["state_dict"], path)


def start_from(module: DetectionModule, config: Config, path: Path) -> None:
    """Start `module` from the weights of another run of the same architecture.

    A visual prompt encoder that was never trained need not be like the configured one. What losses have learned stays
    with the run that learned it.
    """
    checkpoint = read_checkpoint(path)
    before, state = from_dict(checkpoint["config"]), checkpoint["state_dict"]
    state = _anew(state, module, "criterion.")
    if before.model.visual != config.model.visual and not checkpoint["visual_trained"]:
        state = _anew(state, module, "detector.visual_encoder.")
        log.info("%s never trained its visual prompt encoder: a new one, as model.visual says", path)
    load_state(module, state, path)
    module.visual_trained |= checkpoint["visual_trained"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a run saved, in today's format.

    Raises:
        InputError: no such file, not a checkpoint of this project, or one of a newer version.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint {path}: a run writes checkpoints/best.ckpt and checkpoints/last.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise InputError(
            f"{path} is not a checkpoint: it is damaged, or holds objects whose reading could run code; "
            "take another of the run's files, or fetch it again"
        ) from error
    parts = [checkpoint.get(part) for part in ("config", "state_dict")] if isinstance(checkpoint, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{path} is not a checkpoint of this project: it lacks `config` and `state_dict`")
    migrate(checkpoint, path)
    if not isinstance(checkpoint.get("visual_trained"), bool):
        raise InputError(f"{path} is not a checkpoint of this project: it does not say whether it knows visual prompts")
    return checkpoint


def _anew(state: dict[str, Tensor], module: DetectionModule, part: str) -> dict[str, Tensor]:
    """The weights with those of a part, whose names begin so, as the module has them."""
    kept = {name: value for name, value in state.items() if not name.startswith(part)}
    return kept | {name: value for name, value in module.state_dict().items() if name.startswith(part)}


def load_state(module: DetectionModule, state: dict[str, Tensor], path: Path) -> None:
    """Fill a module with all of its tensors.

    Args:
        state: by name, as in the checkpoint.
        path: of the checkpoint, for messages.

    Raises:
        InputError: a tensor is missing, too much, or of another shape.
    """
    own = module.state_dict()
    wrong = [
        f"{name}: {tuple(state[name].shape) if name in state else 'missing'} in the file, "
        f"{tuple(own[name].shape) if name in own else 'nothing'} in the model"
        for name in sorted(own.keys() | state.keys())
        if name not in own or name not in state or own[name].shape != state[name].shape
    ]
    if wrong:
        raise InputError(
            f"{path} has another architecture than the configured model, {len(wrong)} tensors differ, such as "
            f"{'; '.join(wrong[:3])}: take the model section of the config that the checkpoint was trained with"
        )
    module.load_state_dict(state)
