"""What a checkpoint's own settings may say: whoever wrote it may be a stranger (docs/security.md).

What a user writes himself, in an experiment file or on the command line, is free. A run whose checkpoints would be
refused is told so before it is trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PureWindowsPath
from typing import Any

from trex2_lightning.config.checks import ConfigError
from trex2_lightning.config.experiment import Config

MOST_VALUES = 10_000  # of settings, keys included: a few bytes of references can stand for more than memory holds
DEEPEST = 16  # sections within sections
LONGEST_TEXT = 10_000  # characters
LONGEST_NAME = 200  # characters, of models, runs and tasks
MODEL_NAME = re.compile(
    rf"[\w.-]{{0,{LONGEST_NAME}}}"
)  # of timm and open_clip; a colon would name a folder or a repository
# Keyword arguments of timm's models which are sizes, shares and switches, and what their numbers are at most. None
# names a file, an address or a class, nor says what is built only to be thrown away, as `num_classes` does.
MOST_OF_OPTION = dict.fromkeys(
    ("depth", "depths", "layers", "num_vit", "cardinality", "num_heads", "head_dim", "window_size", "patch_size"), 1024
) | dict.fromkeys(
    (
        *("embed_dim", "embed_dims", "dims", "channels", "widths", "stem_width", "stem_chs", "stem_size", "base_width"),
        *("img_size", "in_chans", "output_stride", "mlp_ratio", "mlp_ratios", "qkv_bias", "qk_norm", "init_values"),
        *("ls_init_value", "layer_scale_init_value", "class_token", "reg_tokens", "no_embed_class", "pos_embed"),
        *("dynamic_img_size", "dynamic_img_pad", "strict_img_size", "always_partition", "pre_norm", "final_norm"),
        *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
        *(
            "drop_block_rate",
            "zero_init_last",
            "stem_type",
            "conv_mlp",
            "conv_bias",
            "use_grn",
            "norm_eps",
            "act_layer",
        ),
        *("norm_layer", "weight_init", "fix_init", "avg_down", "kernel_sizes", "pad_type"),
    ),
    2**16,
)
MOST = {  # of settings that memory or time grows with
    "data.size": 2**14,
    "data.max_size": 2**14,
    "data.batch_size": 2**12,
    "data.num_workers": 2**8,
    "data.shapes.num_train": 100_000,
    "data.shapes.nameless_kinds": 100_000,
    "eval.batch_size": 2**12,
    "eval.max_detections": 2**16,
    "eval.references": 10_000,
    "model.num_queries": 2**16,
    "model.num_levels": 64,
    "model.appearance.scale": 16,
    "model.text.layers": 1024,
    "model.visual.layers": 1024,
    "model.transformer.encoder_layers": 1024,
    "model.transformer.decoder_layers": 1024,
}
MOST_OF_MODEL = 2**20  # of any other number of the model


def check_plain(values: Any) -> None:
    """Whether they are settings that can be looked at: not too many, of plain types, and none to be looked up.

    Raises:
        ConfigError: they are not.
    """
    left = MOST_VALUES
    waiting: list[tuple[Any, str, int]] = [(values, "", 0)]
    while waiting:
        value, key, depth = waiting.pop()
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise ConfigError(f"more than {MOST_VALUES:,} settings, or sections {DEEPEST} deep: no run has so many")
        if isinstance(value, dict):
            waiting += [(part, "a key", depth) for part in value]
            waiting += [(part, f"{key}.{name}".lstrip(".")[:200], depth + 1) for name, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(part, key, depth + 1) for part in value]
        elif isinstance(value, str):
            if "${" in value or len(value) > LONGEST_TEXT:
                raise ConfigError(f"{key}={value[:80]}: a checkpoint has values, not what is to be looked up elsewhere")
        elif not (value is None or isinstance(value, bool | float) or (type(value) is int and abs(value) < 2**63)):
            raise ConfigError(f"{key}: a {type(value).__name__} is no setting")


def check_harmless(config: Config) -> None:
    """Whether settings name nothing but sizes, data and models: what a checkpoint may say.

    Raises:
        ConfigError: one names a file of weights, a place to write to, or a size that no machine has.
    """
    check_plain(asdict(config))
    _check_file_name("name", config.name)
    for name in config.eval.tasks:
        _check_file_name("eval.tasks", name, folders=False)
    model = config.model
    names = {"backbone": model.backbone.name, "appearance": model.appearance.name, "text": model.text.name}
    for key, name in names.items():
        if not MODEL_NAME.fullmatch(name):
            raise ConfigError(
                f"model.{key}.name={name[:80]!r}: a checkpoint may name a model of timm or open_clip, not a folder or "
                "a repository: take the model's own name, and its weights from a file"
            )
    for section, options in (("backbone", model.backbone.options), ("appearance", model.appearance.options)):
        _check_options(f"model.{section}.options", options)
    _check_sizes(_flat(config))


def own_places(config: Config) -> None:
    """Forget where to render pictures: what is not there yet is rendered where this user's is (in place)."""
    root = Path(config.data.root)
    if config.data.format == "shapes" and not (root.is_dir() and any(root.iterdir())):
        config.data.root = ""


def _check_file_name(key: str, name: str, *, folders: bool = True) -> None:
    """Names of runs may have folders; files are called by those of tasks."""
    path = PureWindowsPath(name)  # it knows the separators of all systems, and drives
    inside = not path.anchor and ".." not in path.parts and "\0" not in name and len(name) <= LONGEST_NAME
    if not (inside if folders else inside and path.parts == (name,)):
        raise ConfigError(
            f"{key}: {name[:80]!r} is too long or would lead to another folder: a checkpoint may have no such name"
        )


def _check_options(key: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in MOST_OF_OPTION:
            raise ConfigError(f"{key}.{name} is none of the options that a checkpoint may have (docs/security.md)")
        listed = value if isinstance(value, list) else [value]
        if len(listed) > 64 or not all(item is None or isinstance(item, bool | int | float | str) for item in listed):
            raise ConfigError(f"{key}.{name}: a number, a switch, a name or a short list of them is needed")
        _check_number(f"{key}.{name}", value, MOST_OF_OPTION[name])


def _check_sizes(settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if key in MOST or key.startswith("model."):
            _check_number(key, value, MOST.get(key, MOST_OF_MODEL))


def _check_number(key: str, value: Any, most: float) -> None:
    for number in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        if isinstance(number, int | float) and not abs(number) <= most:
            raise ConfigError(f"{key}={value!s:.80}: a checkpoint may have {most:,} at most (docs/security.md)")


def _flat(config: Any, before: str = "") -> dict[str, Any]:
    """Settings by their dotted keys, without options of other libraries."""
    found: dict[str, Any] = {}
    for name, value in vars(config).items():
        key = f"{before}{name}"
        found |= _flat(value, f"{key}.") if hasattr(value, "__dataclass_fields__") else {key: value}
    return found
