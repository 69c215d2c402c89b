"""A trained Grounding DINO in the format of the Hugging Face hub, for `transformers`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from trex2_lightning.config import ModelConfig
from trex2_lightning.errors import InputError
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.models.hub.names import hub_names
from trex2_lightning.models.text import BertEncoder
from trex2_lightning.structures import IMAGENET_PIXELS


def save_detector(detector: PromptedDetector, config: ModelConfig, folder: Path) -> None:
    """Write a (word, early) detector with Swin and BERT so that `transformers` loads it with `from_pretrained`.

    Scaled similarity makes it an MM-Grounding-DINO, plain similarity a Grounding DINO. The visual prompt encoder,
    the presence head and what denoising needs have no place there and are left out.

    Args:
        detector: built from `config`.
        config: its settings.
        folder: made where it does not exist.

    Raises:
        InputError: a detector that the format has no place for.
    """
    encoder, sizes = detector.text_encoder, config.transformer
    cell = (config.granularity, config.fusion)
    if cell != ("word", "early") or not isinstance(encoder, BertEncoder) or config.text.norm:
        raise InputError(
            "only a Grounding DINO can be written in the hub's format: model.granularity=word, model.fusion=early, "
            "a BERT and model.text.norm=false"
        )
    if config.prompt_bias:
        raise InputError(
            "the hub's format has no place for the bias of each prompt: train it with model.prompt_bias=false"
        )
    swin: Any = detector.backbone.model
    stages: list[Any] = [stage for name, stage in swin.named_children() if name.startswith("layers_")]
    if not stages:
        raise InputError("only a detector with a Swin backbone can be written in the hub's format")
    if detector.backbone.pixels != IMAGENET_PIXELS:
        raise InputError(
            "only a detector of pixels with ImageNet's mean and deviation can be written in the hub's format, as its "
            "readers normalise them so: train it with model.backbone.mean=[] and model.backbone.std=[]"
        )
    is_mm = config.similarity == "scaled"
    hub = {
        "architectures": ["MMGroundingDinoForObjectDetection" if is_mm else "GroundingDinoForObjectDetection"],
        "model_type": "mm-grounding-dino" if is_mm else "grounding-dino",
        "d_model": config.width,
        "num_feature_levels": config.num_levels,
        "num_queries": config.num_queries,
        "max_text_len": config.max_tokens,
        "encoder_layers": sizes.encoder_layers,
        "decoder_layers": sizes.decoder_layers,
        **{f"{part}_attention_heads": sizes.heads for part in ("encoder", "decoder")},
        **{f"{part}_n_points": sizes.points for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": sizes.ffn for part in ("encoder", "decoder")},
        "decoder_bbox_embed_share": sizes.shared_box_head,
        **({"decoder_cls_embed_share": False} if is_mm else {}),
        "dropout": sizes.dropout,
        "fusion_droppath": sizes.fusion_drop_path,
        "backbone_config": {
            "model_type": "swin",
            "embed_dim": swin.patch_embed.proj.out_channels,
            "depths": [len(stage.blocks) for stage in stages],
            "num_heads": [stage.blocks[0].attn.num_heads for stage in stages],
            "window_size": stages[0].blocks[0].window_size[0],
            "out_indices": [index + 1 for index in detector.backbone.out_indices],
        },
        "text_config": {
            "model_type": "bert",
            "hidden_size": encoder.tower.width,
            "num_hidden_layers": encoder.tower.encoder.num_layers,
            "num_attention_heads": encoder.tower.heads,
            "intermediate_size": 4 * encoder.tower.width,
            "max_position_embeddings": encoder.tower.context_length,
            "vocab_size": encoder.tower.words.num_embeddings,
        },
    }
    tensors: dict[str, Tensor] = {}
    for key, tensor in detector.state_dict().items():
        names = hub_names(key, detector.backbone.out_indices[0])
        if not (sizes.shared_box_head and re.match(r"bbox_embed\.[1-9]", "".join(names))):  # written once
            pieces = tensor.chunk(len(names)) if len(names) > 1 else [tensor] * len(names)
            tensors |= {
                name: piece.clone(memory_format=torch.contiguous_format)
                for name, piece in zip(names, pieces, strict=True)
            }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hub, indent=2) + "\n", encoding="utf-8")
    if encoder.tokenizer.pieces:
        (folder / "vocab.txt").write_text("\n".join(encoder.tokenizer.pieces) + "\n", encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
