"""Checkpoints: a run rebuilt from its file, and weights to start from."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from trex2_lightning.config import AppearanceConfig, Config, from_dict, migrate, to_dict
from trex2_lightning.errors import InputError
from trex2_lightning.models.build import build_appearance, warn_of_random_appearance
from trex2_lightning.models.outline import outlined
from trex2_lightning.models.torch_files import check_own_bytes, read_torch_file
from trex2_lightning.models.weights import pixel_statistics
from trex2_lightning.training.build import build_module
from trex2_lightning.training.checkpoint_io import WholeCheckpointIO
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.provenance import COMPARED_BY, UNKNOWN, provenance_of, weights_of
from trex2_lightning.training.published import is_published, read_published, weights_file

log = logging.getLogger(__name__)

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")  # as the hub names them


def checkpoint_of(what: str | Path) -> Path | None:
    """The file itself, or the best checkpoint of a run's folder; None of what is in the hub's format.

    Raises:
        InputError: there is nothing of that name here, and the hub has none such; or a folder has neither.
    """
    path = Path(what)
    if path.is_dir():
        kept = [path / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
        found = next((file for file in kept if file.is_file()), None)
        if found is None and not (path / "config.json").is_file():
            raise InputError(
                f"{path} has neither checkpoints/best.ckpt, as runs have, nor config.json, as folders of the hub have: "
                "give another folder, or a checkpoint"
            )
        return found
    if path.exists() or path.suffix == ".ckpt" or not REPOSITORY.fullmatch(str(what)):
        return path
    return None


def load_checkpoint(path: Path) -> tuple[Config, DetectionModule]:
    """The run of a checkpoint, rebuilt from the file alone; weights are the averaged ones where EMA was on.

    Raises:
        InputError: no such file, not a checkpoint of this project, or its weights do not fit its configuration.
    """
    checkpoint = read_checkpoint(path)
    config = from_dict(checkpoint["config"])
    model = config.model
    weights = (model.backbone.weights, model.appearance.weights, model.text.pretrained, model.init_from)
    # All weights come from the checkpoint.
    model.backbone.weights = model.appearance.weights = model.text.pretrained = model.init_from = ""
    with outlined(weights_file(path).stat().st_size, path):
        check_fits(build_module(config), checkpoint["state_dict"], path)
    module = build_module(config)
    model.backbone.weights, model.appearance.weights, model.text.pretrained, model.init_from = weights
    load_state(module, checkpoint["state_dict"], path)
    module.visual_trained = checkpoint["visual_trained"]
    module.known_names = (*checkpoint.get("known_names", ()),)
    module.provenance = provenance_of(checkpoint)
    try:
        module.detector.calibration.load_fits(checkpoint.get("calibration", {}))
    except (AttributeError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{path}: what its scores mean is not numbers as this project has them; fit them anew with trex2 calibrate"
        ) from error
    return config, module.eval()


def compare_appearance(config: Config, module: DetectionModule, appearance: AppearanceConfig) -> None:
    """Give a trained detector a network that compares appearance, with its own weights; nothing is trained.

    Raises:
        InputError: its weights cannot be had, or the detector has learned by one, or would have to.
    """
    if any(one.input or one.learned_weight for one in (appearance, config.model.appearance)):
        raise InputError(
            "model.appearance.input and learned_weight are learned in training: leave model.appearance as the "
            "checkpoint has it, and without them where it has none"
        )
    config.model.appearance = appearance
    module.detector.appearance = build_appearance(config.model)
    warn_of_random_appearance(module.detector)
    module.eval()


def write_fits(config: Config, module: DetectionModule, path: Path, output: Path) -> None:
    """Write the checkpoint `path` to `output`, with what was fitted to its weights after training."""
    checkpoint = read_checkpoint(path)
    prefix = "detector.appearance."
    fitted = {name: value.cpu() for name, value in module.state_dict().items() if name.startswith(prefix)}
    for part in ("state_dict", "current_model_state"):  # the second: beside averaged weights
        if part in checkpoint:
            others = {name: value for name, value in checkpoint[part].items() if not name.startswith(prefix)}
            checkpoint[part] = others | fitted
    checkpoint["config"]["model"]["appearance"] = to_dict(config)["model"]["appearance"]  # the rest is the run's
    before, now = provenance_of(checkpoint), weights_of(config)
    if before[-1] != UNKNOWN:
        others = {key: name for key, name in before[-1]["weights"].items() if key != COMPARED_BY}
        compared = {COMPARED_BY: now[COMPARED_BY]} if COMPARED_BY in now else {}
        checkpoint["provenance"] = [*before[:-1], before[-1] | {"weights": others | compared}]
    checkpoint["calibration"] = module.detector.calibration.fits()
    checkpoint["known_names"] = [*module.known_names]
    WholeCheckpointIO().save_checkpoint(checkpoint, output)


def start_from(module: DetectionModule, config: Config, path: Path) -> None:
    """Start `module` from the weights of another run of the same architecture.

    A visual prompt encoder that was never trained need not be like the configured one; only one of the two models may
    have a presence head, or a network for appearance. What losses have learned stays with the run that learned it.

    Raises:
        InputError: as `load_checkpoint`, or its backbone saw pixels that were normalised otherwise.
    """
    checkpoint = read_checkpoint(path)
    before, state = from_dict(checkpoint["config"]), checkpoint["state_dict"]
    _check_pixels(config, before, path)
    state = _with_own(module, state, "criterion.")
    if before.model.visual != config.model.visual and not checkpoint["visual_trained"]:
        state = _with_own(module, state, "detector.visual_encoder.")
        log.info("%s never trained its visual prompt encoder: a new one, as model.visual says", path)
    if before.model.presence != config.model.presence:
        state = _with_own(module, state, "detector.presence.")
        there, here = ("no", "a new one") if config.model.presence else ("a", "none")
        log.info("%s has %s presence head: %s here, as model.presence says", path, there, here)
    if before.model.prompt_bias != config.model.prompt_bias:
        state = _with_own(module, state, ".of_prompt")
    if before.model.appearance != config.model.appearance:
        state = _with_own(module, state, "detector.appearance.")
        warn_of_random_appearance(module.detector)
        if before.model.appearance.input != config.model.appearance.input:
            state = _with_own(module, state, "detector.appearance_input.")
        if before.model.appearance.learned_weight != config.model.appearance.learned_weight:
            state = _with_own(module, state, "detector.appearance_term.")
    load_state(module, state, path)
    module.provenance = provenance_of(checkpoint)
    module.visual_trained |= checkpoint["visual_trained"]


def _with_own(module: DetectionModule, state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The state with the module's own tensors whose names have `part` in them, where it has some."""
    others = {name: value for name, value in state.items() if part not in name}
    return others | {name: value for name, value in module.state_dict().items() if part in name}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a run saved, in today's format.

    Raises:
        InputError: no such file, not a checkpoint of this project, or one of a newer version.
    """
    if is_published(path):
        return _checked(read_published(path), path)
    if not path.is_file():
        raise InputError(f"no checkpoint {path}: a run writes checkpoints/best.ckpt and checkpoints/last.ckpt")
    try:
        checkpoint = read_torch_file(path)
        if isinstance(checkpoint, dict) and isinstance(state := checkpoint.get("state_dict"), dict):
            check_own_bytes(state.values(), path)
    except Exception as error:  # a damaged file can raise anything
        raise InputError(
            f"{path} is not a checkpoint: it is damaged, or holds objects whose reading could run code, or would take "
            "more memory than the file; take another of the run's files, or fetch it again"
        ) from error
    parts = [checkpoint.get(part) for part in ("config", "state_dict")] if isinstance(checkpoint, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{path} is not a checkpoint of this project: it lacks `config` and `state_dict`")
    return _checked(checkpoint, path)


def _checked(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    migrate(checkpoint, path)
    if not isinstance(checkpoint.get("visual_trained"), bool):
        raise InputError(f"{path} is not a checkpoint of this project: it does not say whether it knows visual prompts")
    names = checkpoint.get("known_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} is not a checkpoint of this project: its known_names are no list of names")
    return checkpoint


def resumable(folder: Path) -> Path:
    """The newest checkpoint of a run's `checkpoints` that can be read; what a kill has left half written goes.

    Raises:
        InputError: none can be.
    """
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    try:
        read_checkpoint(last)
    except InputError as error:
        if not previous.is_file():
            raise
        read_checkpoint(previous)
        log.warning("%s: going on from %s, the one before it", error, previous)
        return previous
    return last


def load_state(module: DetectionModule, state: dict[str, Tensor], path: Path) -> None:
    """Fill a module with all of its tensors.

    Args:
        state: by name, as in the checkpoint.
        path: of the checkpoint, for messages.

    Raises:
        InputError: a tensor is missing, too much, or of another shape.
    """
    check_fits(module, state, path)
    module.load_state_dict(state)


def check_fits(module: DetectionModule, state: dict[str, Tensor], path: Path) -> None:
    """Raises InputError: a tensor of `load_state` is missing, too much, or of another shape."""
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


def _check_pixels(config: Config, before: Config, path: Path) -> None:
    own, other = (pixel_statistics(run.model.backbone) for run in (config, before))
    if own != other:
        mean, std = (f"[{','.join(map(str, values))}]" for values in other)
        raise InputError(
            f"{path} was trained on pixels of another mean and deviation: add model.backbone.mean={mean} "
            f"model.backbone.std={std} model.backbone.name={before.model.backbone.name}, as it had them"
        )
