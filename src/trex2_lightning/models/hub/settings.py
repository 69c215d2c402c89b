"""Settings of a Grounding DINO in the format of the Hugging Face hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from trex2_lightning.config import BackboneConfig, ModelConfig, TextConfig, TransformerConfig
from trex2_lightning.errors import InputError
from trex2_lightning.models.weights import WeightsError


def model_config(source: str) -> ModelConfig:
    """The settings with which a detector is the Grounding DINO of a folder or repository.

    Raises:
        InputError: an architecture that this package does not have.
    """
    hub = _DEFAULTS | read_config(hub_folder(source))
    kind = str(hub.get("model_type", ""))
    if not kind.endswith("grounding-dino"):
        raise WeightsError(f"{source} is not a Grounding DINO: its config.json has another model_type")
    _require_alike(hub, _DEFAULTS, source)
    swin, bert = _SWIN_DEFAULTS | hub["backbone_config"], _BERT_DEFAULTS | hub["text_config"]
    if "out_features" in hub["backbone_config"]:
        stages = swin["out_features"] if isinstance(swin["out_features"], list) else [None]
        found = [STAGE.fullmatch(stage) if isinstance(stage, str) else None for stage in stages]
        swin["out_indices"] = [int(stage[1]) if stage else "" for stage in found]
    _require_alike(swin, _SWIN_DEFAULTS, source)
    _require_alike(bert, _BERT_DEFAULTS, source)
    required = {
        "two_stage": (hub["two_stage"], True),
        "two_stage_bbox_embed_share": (hub["two_stage_bbox_embed_share"], False),
        "embedding_init_target": (hub["embedding_init_target"], True),
        "position_embedding_type": (hub["position_embedding_type"], "sine"),
        "decoder_attention_heads": (hub["decoder_attention_heads"], hub["encoder_attention_heads"]),
        "decoder_ffn_dim": (hub["decoder_ffn_dim"], hub["encoder_ffn_dim"]),
        "decoder_n_points": (hub["decoder_n_points"], hub["encoder_n_points"]),
        "backbone_config.model_type": (swin["model_type"], "swin"),
        "backbone_config.patch_size": (swin["patch_size"], 4),
        "backbone_config.use_absolute_embeddings": (swin["use_absolute_embeddings"], False),
        "text_config.model_type": (bert["model_type"], "bert"),
        "text_config.intermediate_size": (bert["intermediate_size"], 4 * bert["hidden_size"]),
    }
    wrong = [f"{key}={found}" for key, (found, value) in required.items() if found != value]
    if wrong:
        raise InputError(f"{source} has {', '.join(wrong)}, for which there is no setting")
    return ModelConfig(
        granularity="word",
        fusion="early",
        width=hub["d_model"],
        num_levels=hub["num_feature_levels"],
        num_queries=hub["num_queries"],
        similarity="scaled" if kind.startswith("mm-") else "plain",
        max_tokens=hub["max_text_len"],
        backbone=BackboneConfig(
            name="swin_tiny_patch4_window7_224",
            out_indices=[index - 1 for index in swin["out_indices"]],
            options={key: swin[key] for key in ("embed_dim", "depths", "num_heads", "window_size")},
        ),
        text=TextConfig(
            name="custom-bert",
            norm=False,
            width=bert["hidden_size"],
            layers=bert["num_hidden_layers"],
            heads=bert["num_attention_heads"],
            context_length=bert["max_position_embeddings"],
            vocabulary=bert["vocab_size"],
        ),
        transformer=TransformerConfig(
            encoder_layers=hub["encoder_layers"],
            decoder_layers=hub["decoder_layers"],
            heads=hub["encoder_attention_heads"],
            points=hub["encoder_n_points"],
            ffn=hub["encoder_ffn_dim"],
            shared_box_head=hub["decoder_bbox_embed_share"],
            fusion_drop_path=hub["fusion_droppath"],
        ),
    )


def hub_folder(source: str) -> Path:
    """The folder itself, or where a repository of the hub was downloaded to.

    Raises:
        WeightsError: neither can be read.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors", "vocab.txt"]))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise WeightsError(
            f"there is no folder {source}, and no such repository of the hub can be read "
            f"({type(error).__name__}): give the folder that it was downloaded to"
        ) from error


def weights_bytes(source: str) -> int:
    """How long the files of a folder's or a repository's weights are together."""
    return sum(file.stat().st_size for file in hub_folder(source).glob("*.safetensors"))


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        WeightsError: there is none that can be read.
    """
    try:
        config = json.loads(read_text(folder / "config.json"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{folder} has no readable config.json: give a folder in the hub's format") from error
    return config if isinstance(config, dict) else {}


def read_text(file: Path) -> str:
    """The content of a file that is read whole.

    Raises:
        OSError, ValueError: it cannot be read, is longer than `LONGEST_FILE`, or is no text.
    """
    if file.stat().st_size > LONGEST_FILE:
        raise ValueError(f"{file} is longer than {LONGEST_FILE:,} bytes")
    return file.read_text(encoding="utf-8")


def _require_alike(found: dict[str, Any], known: dict[str, Any], source: str) -> None:
    """Raises InputError: a value is not of the known one's kind, of a list an item of it; nobody has typed them."""
    for key, value in known.items():
        items, kind = [found[key]], type(value)
        if isinstance(value, list) and isinstance(found[key], list) and found[key]:
            items, kind = found[key], int
        known_kind = all(type(item) is kind or (kind is float and type(item) is int) for item in items)
        if len(items) > MOST_ITEMS or not known_kind:
            raise InputError(f"{source}: its config.json says {key}={found[key]!r:.60}, which cannot be")


LONGEST_FILE = 2**26  # of a text; a vocabulary of many languages has a quarter
MOST_ITEMS = 64  # of a list of sizes
STAGE = re.compile(r"stage(\d{1,3})")

# What config.json need not say, of all its keys that are read.
_SWIN_DEFAULTS: dict[str, Any] = {
    "model_type": "swin",
    "embed_dim": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
    "patch_size": 4,
    "use_absolute_embeddings": False,
    "out_indices": [2, 3, 4],
}
_BERT_DEFAULTS: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "vocab_size": 30522,
}
_DEFAULTS: dict[str, Any] = {
    "backbone_config": {},
    "text_config": {},
    "d_model": 256,
    "num_feature_levels": 4,
    "num_queries": 900,
    "max_text_len": 256,
    **{f"{part}_layers": 6 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 8 for part in ("encoder", "decoder")},
    **{f"{part}_n_points": 4 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 2048 for part in ("encoder", "decoder")},
    "two_stage": True,
    "two_stage_bbox_embed_share": False,
    "embedding_init_target": True,
    "position_embedding_type": "sine",
    "decoder_bbox_embed_share": True,
    "fusion_droppath": 0.1,
}
