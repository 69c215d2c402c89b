"""Weights of Grounding DINO and BERT from the format of the Hugging Face hub: config.json and safetensors in a folder.

Of `GroundingDinoForObjectDetection` and `MMGroundingDinoForObjectDetection` of `transformers`, which is not needed.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trex2_lightning.errors import reason_of
from trex2_lightning.models.bert import WordPieces
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.models.hub.names import BERT, hub_names
from trex2_lightning.models.hub.settings import hub_folder, read_config, read_text
from trex2_lightning.models.text import BertEncoder
from trex2_lightning.models.weights import WeightsError, read_state_dict

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """What became of a file's tensors and of a detector's, by name."""

    loaded: tuple[str, ...]  # the detector's, now those of the file
    skipped: tuple[str, ...]  # the file's, for which the detector has no place
    new: tuple[str, ...]  # the detector's, as they were

    def __str__(self) -> str:
        """Counts, with the parts of the detector (by their first name) and of the file."""
        return (
            f"{len(self.loaded)} tensors loaded{_parts(self.loaded, 1)}, {len(self.new)} new{_parts(self.new, 1)}, "
            f"{len(self.skipped)} of the file skipped{_parts(self.skipped, 3)}"
        )


def load_detector(detector: PromptedDetector, source: str) -> Loaded:
    """Give a detector all weights that it shares with a Grounding DINO, and its vocabulary where it has a BERT.

    With the settings of `model_config` these are all but the visual prompt encoder and what denoising needs; a
    late-fusion detector takes backbone, neck, deformable encoder, query selection and decoder.

    Args:
        detector: any; changed in place.
        source: folder, or repository of the hub.

    Raises:
        WeightsError: no such folder or repository, not a Grounding DINO, or one of other sizes than the detector.
    """
    folder = hub_folder(source)
    if not str(read_config(folder).get("model_type", "")).endswith("grounding-dino"):
        raise WeightsError(f"{source} is not a Grounding DINO: its config.json has another model_type")
    state = _with_all_heads(_tensors(folder), len(detector.decoder.layers))
    is_bert = isinstance(detector.text_encoder, BertEncoder)
    own = detector.state_dict()
    names = {
        key: hub_names(key, detector.backbone.out_indices[0])
        for key in own
        if is_bert or not key.startswith("text_encoder.")  # the projection of another encoder is another one
    }
    found = _take(detector, names, state, source)
    if not found:
        raise WeightsError(f"{source} has nothing that the detector could take: it is not in the hub's format")
    if isinstance(detector.text_encoder, BertEncoder):
        _read_vocabulary(detector.text_encoder.tokenizer, folder)
    used = {name for key in found for name in names[key]}
    report = Loaded(
        tuple(found),
        tuple(name for name in state if name not in used and not re.match(_COPIES, name)),
        tuple(key for key in own if key not in found and not key.endswith("_extra_state")),
    )
    _require_all(detector, report, source)
    log.info("%s: %s", source, report)
    return report


def load_backbone(model: nn.Module, source: str) -> bool:
    """Give a timm model, which may have other maps than the detector's, the weights of a Grounding DINO's backbone.

    Args:
        model: changed in place.
        source: folder, or repository of the hub.

    Returns:
        Whether the source has that backbone.

    Raises:
        WeightsError: no such folder or repository, a backbone of other sizes, or stages that only the model has.
    """
    names = {key: hub_names(f"backbone.model.{key}", 0) for key, _ in model.named_parameters()}
    found = _take(model, names, _tensors(hub_folder(source)), source)
    if found and (lacks := names.keys() - found):
        raise WeightsError(
            f"{source} has a backbone without {min(lacks)}: set model.appearance.out_indices to maps of earlier stages"
        )
    return bool(found)


def load_bert(encoder: BertEncoder, source: str) -> None:
    """Give a text encoder the weights and the vocabulary of a BERT.

    Args:
        encoder: changed in place.
        source: folder, or repository of the hub.

    Raises:
        WeightsError: no such folder or repository, or a BERT of another size.
    """
    folder = hub_folder(source)
    modern = {"gamma": "weight", "beta": "bias"}
    state = {
        BERT + re.sub(r"(gamma|beta)$", lambda m: modern[m[0]], name.removeprefix("bert.")): tensor
        for name, tensor in _tensors(folder).items()
    }
    names = {key: hub_names(f"text_encoder.{key}", 0) for key in encoder.state_dict() if key.startswith("tower.")}
    missing = names.keys() - _take(encoder, names, state, source)
    if missing:
        raise WeightsError(
            f"{source} is not a BERT of the configured size: it lacks {names[min(missing)][0].removeprefix(BERT)}"
        )
    _read_vocabulary(encoder.tokenizer, folder)


ADDED_PARTS = ("visual_encoder.", "noised_content.", "presence.", "appearance")  # what no Grounding DINO has

# Tensors of older files that repeat others or follow from the sizes.
_COPIES = r"model\.decoder\.(bbox|class)_embed\.|.*(relative_position_index|position_ids)$|.*\.swin\.layernorm\."


def _parts(names: tuple[str, ...], depth: int) -> str:
    parts = dict.fromkeys(".".join(re.sub(r"\.\d+", "", name).split(".")[:depth]) for name in names)
    return f" ({', '.join(parts)})" if parts else ""


def _tensors(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{folder} has no .safetensors file: take the repository's version that has one")
    return {name: tensor for file in files for name, tensor in read_state_dict(file).items()}


def _with_all_heads(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Heads that all layers share are written once."""
    first = re.compile(r"^(bbox|class)_embed\.0\.")
    shared = {name: tensor for name, tensor in state.items() if first.match(name)}
    copies = {
        first.sub(rf"\g<1>_embed.{layer}.", name): tensor for layer in range(layers) for name, tensor in shared.items()
    }
    return copies | state


def _require_all(detector: PromptedDetector, report: Loaded, source: str) -> None:
    """A detector that is a Grounding DINO by its parts must be one to the last parameter."""
    encoder = detector.text_encoder
    if detector.decoder.reads_context and isinstance(encoder, BertEncoder) and encoder.granularity == "word":
        lacks = tuple(name for name in report.new if not name.startswith(ADDED_PARTS) and ".of_prompt" not in name)
        more = tuple(name for name in report.skipped if ".layer" in name or "class_embed." in name)
        if lacks or more:
            raise WeightsError(
                f"{source} differs from the detector: it lacks {len(lacks)} tensors{_parts(lacks, 2)} and "
                f"has {len(more)} more{_parts(more, 3)}: take the sizes of its config.json. A Grounding DINO has "
                "model.similarity=plain, an MM-Grounding-DINO scaled, both model.text.norm=false"
            )


def _take(
    module: nn.Module, names: dict[str, tuple[str, ...]], state: dict[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Load the tensors of `module` whose `names` are all in `state`; return them by the module's names."""
    found = {
        key: torch.cat([state[name] for name in parts]) if len(parts) > 1 else state[parts[0]]
        for key, parts in names.items()
        if parts and all(name in state for name in parts)
    }
    own = module.state_dict(keep_vars=True)
    wrong = [
        f"{key}: {tuple(x.shape)}, not {tuple(own[key].shape)}" for key, x in found.items() if x.shape != own[key].shape
    ]
    if wrong:
        raise WeightsError(
            f"{source} has {len(wrong)} tensors of another shape than the detector's, such as {'; '.join(wrong[:3])}: "
            "give the model section the sizes of its config.json"
        )
    places: dict[int, str] = {}
    for key in found:
        first = places.setdefault(id(own[key]), key)
        if not torch.equal(found[first], found[key]):
            raise WeightsError(f"{source} has a box head for each layer: set model.transformer.shared_box_head=false")
    module.load_state_dict(found, strict=False)
    return found


def _read_vocabulary(pieces: WordPieces, folder: Path) -> None:
    text, tokenizer = folder / "vocab.txt", folder / "tokenizer.json"
    try:
        if text.is_file():
            listed = read_text(text).splitlines()
        elif tokenizer.is_file():
            numbers = json.loads(read_text(tokenizer))["model"]["vocab"]
            listed = sorted(numbers, key=numbers.get)
        else:
            return
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{folder}: its vocabulary cannot be read ({reason_of(error)}): fetch it again") from error
    pieces.read(listed)
