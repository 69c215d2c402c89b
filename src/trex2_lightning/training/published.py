"""A trained detector as a folder for the hub: settings and weights, nothing that is executed, nothing to download.

`model.safetensors` has the detector's tensors, `config.json` all else that is needed to ask it: the settings of the
model, sizes of images, what scores mean. A BERT's vocabulary is `vocab.txt`; CLIP's comes with open_clip. Whoever reads
such a folder may have it from a stranger: it says no more than it needs to, and is refused where it does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trex2_lightning.config import Config, ConfigError, ModelConfig, check_harmless, from_dict, to_dict
from trex2_lightning.errors import InputError, reason_of
from trex2_lightning.models.appearance import BACKBONE
from trex2_lightning.models.bert import WordPieces
from trex2_lightning.models.build import BERTS
from trex2_lightning.models.calibration import ScoreCalibration
from trex2_lightning.models.text import BertEncoder
from trex2_lightning.training.module import DetectionModule

MODEL_TYPE = "trex2_lightning"
SETTINGS_FILE, WEIGHTS_FILE, VOCABULARY_FILE = "config.json", "model.safetensors", "vocab.txt"
PUBLISHED_FILES = (SETTINGS_FILE, WEIGHTS_FILE, VOCABULARY_FILE)
KEPT = {  # settings, beside those of the model, that detection depends on
    "data": ("size", "max_size"),
    "eval": ("max_detections",),
    "train": ("precision", "float32_matmul_precision"),
}
BESIDE_WEIGHTS = (
    "visual_trained",
    "known_names",
    "calibration",
    "provenance",
)  # in a checkpoint, beside settings and weights
KEYS = {"model_type", "format", "model", *KEPT, *BESIDE_WEIGHTS}
DETECTOR = "detector."  # before the names of a module's tensors
WORDS, PIECES = "text_encoder.tower.words.weight", "text_encoder.tokenizer._extra_state"  # a BERT's
MOST_BYTES_OF_TEXT = 2**24
MOST_LAYERS, MOST_NUMBER = 1024, 2**20  # in the settings of the model


def publish(config: Config, module: DetectionModule, folder: Path) -> list[Path]:
    """Write a detector to a folder, which is made.

    Raises:
        InputError: settings that a folder may not have, or a place that cannot be written to.
    """
    told = replace(config, model=_without_sources(config.model, module))
    check_harmless(told)
    settings = to_dict(told)
    kept = {section: {key: settings[section][key] for key in keys} for section, keys in KEPT.items()}
    calibration = {name: tensor.tolist() for name, tensor in module.detector.calibration.fits().items()}
    beside = (module.visual_trained, [*module.known_names], calibration, module.provenance)
    values = {"model_type": MODEL_TYPE, "format": settings["format"], "model": settings["model"], **kept}
    state = module.detector.state_dict()
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # layers may share one, files may not
        for name, tensor in state.items()
        if name != PIECES
    }
    text = {SETTINGS_FILE: json.dumps(values | dict(zip(BESIDE_WEIGHTS, beside, strict=True)), indent=2) + "\n"}
    encoder = module.detector.text_encoder
    if isinstance(encoder, BertEncoder) and encoder.tokenizer.pieces:
        text[VOCABULARY_FILE] = "".join(f"{piece}\n" for piece in encoder.tokenizer.pieces)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in PUBLISHED_FILES:
            (folder / name).unlink(missing_ok=True)  # of another detector
        save_file(tensors, folder / WEIGHTS_FILE, {"format": "pt"})
        (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors writes it for its owner alone
        for name, content in text.items():
            (folder / name).write_bytes(content.encode())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: cannot be written ({reason_of(error)}): give another folder") from error
    return [folder / name for name in PUBLISHED_FILES if (folder / name).is_file()]


def is_published(folder: Path) -> bool:
    """Whether a folder has a detector of this package."""
    file = folder / SETTINGS_FILE
    try:
        values = json.loads(_text(file)) if file.is_file() else None
    except (InputError, ValueError):
        return False
    return isinstance(values, dict) and values.get("model_type") == MODEL_TYPE


def weights_file(path: Path) -> Path:
    """Of a checkpoint itself; of a folder its weights."""
    return path / WEIGHTS_FILE if path.is_dir() else path


def read_published(folder: Path) -> dict[str, Any]:
    """What `publish` wrote, in the form of a checkpoint.

    Raises:
        InputError: no such folder, a damaged one, or one that says more than it may, or what its weights do not have.
    """
    values = _settings(folder)
    sections = {section: values[section] for section in ("model", *KEPT)}
    checkpoint = {"config": {"format": values["format"], **sections}, **{name: values[name] for name in BESIDE_WEIGHTS}}
    try:
        model = from_dict(checkpoint["config"]).model
    except ConfigError as error:
        raise InputError(f"{folder / SETTINGS_FILE}: {error}") from error
    _check_sources(model, folder / SETTINGS_FILE)
    state = {DETECTOR + name: tensor for name, tensor in _tensors(folder / WEIGHTS_FILE).items()}
    if model.text.name in BERTS and DETECTOR + WORDS in state:
        state[DETECTOR + PIECES] = _vocabulary(folder / VOCABULARY_FILE, len(state[DETECTOR + WORDS]))
    return checkpoint | {"state_dict": state, "calibration": _calibration(values["calibration"], folder)}


def _without_sources(model: ModelConfig, module: DetectionModule) -> ModelConfig:
    """As it is, but for where weights came from; and pixels as they are, whatever timm will know of them."""
    mean, std = (list(values) for values in module.detector.backbone.pixels)
    network = model.appearance
    return replace(
        model,
        init_from="",
        backbone=replace(model.backbone, weights="", mean=mean, std=std),
        text=replace(model.text, pretrained=""),
        appearance=replace(network, weights=network.weights if network.name in ("", BACKBONE) else ""),
    )


def _settings(folder: Path) -> dict[str, Any]:
    """`config.json`, if it has what it must have and nothing else."""
    file = folder / SETTINGS_FILE
    try:
        values = json.loads(_text(file))
    except ValueError as error:
        raise InputError(f"{file}: is damaged ({reason_of(error)}): fetch the folder again") from error
    if not isinstance(values, dict) or values.get("model_type") != MODEL_TYPE:
        raise InputError(f"{folder} has no detector of this package: its {SETTINGS_FILE} says another model_type")
    if strange := sorted({*values} ^ KEYS):
        what = "is missing" if strange[0] in KEYS else "is unknown"
        raise InputError(f"{file}: {strange[0]} {what}: take a folder that trex2 push has written, by this version")
    types = {"visual_trained": bool, "known_names": list, "calibration": dict, "provenance": list}
    wrong = [key for key, kind in types.items() if not isinstance(values[key], kind)]
    wrong += [section for section, keys in KEPT.items() if not _has_only(values[section], keys)]
    wrong += [] if all(isinstance(name, str) for name in values["known_names"]) else ["known_names"]
    if wrong:
        raise InputError(f"{file}: {wrong[0]} is none that trex2 push writes: fetch the folder again")
    return values


def _has_only(section: Any, keys: Sequence[str]) -> bool:
    return isinstance(section, dict) and set(section) <= set(keys)


def _text(file: Path) -> str:
    """Raises InputError: it is not there, not a text, or far too long for one."""
    try:
        if file.stat().st_size > MOST_BYTES_OF_TEXT:
            raise InputError(f"{file}: is longer than any that trex2 push writes")
        return file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({reason_of(error)}): fetch the folder again") from error


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: is missing or damaged ({reason_of(error)}): fetch the folder again") from error


def _check_sources(model: ModelConfig, source: Any) -> None:
    """Raises InputError: the settings name weights that are elsewhere."""
    sources = [model.init_from, model.backbone.weights, model.text.pretrained]
    if model.appearance.name not in ("", BACKBONE):
        sources.append(model.appearance.weights)
    if any(sources):
        raise InputError(
            f"{source}: its model is to be had from elsewhere; a folder of the hub has all of it in itself"
        )


def _vocabulary(file: Path, size: int) -> Tensor:
    """Word pieces as a detector's tensor has them; all zeros where there is no file."""
    pieces = WordPieces(size)
    if file.is_file():
        pieces.read(_text(file).removesuffix("\n").split("\n"))
    return pieces.get_extra_state()


def _calibration(values: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    """What scores mean, as a checkpoint has it."""
    own = ScoreCalibration().fits()
    try:
        found = {name: torch.tensor(values[name], dtype=tensor.dtype) for name, tensor in own.items()}
    except (KeyError, ValueError, TypeError, RuntimeError):
        found = {}
    if {*values} != {*own} or any(name not in found or found[name].shape != own[name].shape for name in own):
        raise InputError(f"{folder / SETTINGS_FILE}: calibration is none of this version: fetch the folder again")
    return found
