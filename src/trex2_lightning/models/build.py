"""Configuration to detector: the only place that chooses between classes of models."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from torch import nn

from trex2_lightning.config import ModelConfig
from trex2_lightning.layers.decoder import Decoder
from trex2_lightning.layers.encoder import DeformableEncoder
from trex2_lightning.models.appearance import BACKBONE, Appearance, AppearanceInput, AppearanceTerm
from trex2_lightning.models.backbone import Backbone, Neck
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.models.early import EarlyFusionDetector, FusionLayer
from trex2_lightning.models.hub.load import load_backbone, load_bert, load_detector
from trex2_lightning.models.late import LateFusionDetector
from trex2_lightning.models.presence import PresenceHead
from trex2_lightning.models.selection import QuerySelection
from trex2_lightning.models.text import BertEncoder, ClipEncoder, TextEncoder
from trex2_lightning.models.visual_prompt import VisualPromptEncoder

log = logging.getLogger(__name__)

BERTS = ("bert-base-uncased", "custom-bert")
PRETRAINED = ("backbone.model.", "text_encoder.tower.")  # parts that have weights of their own


def build_detector(config: ModelConfig) -> PromptedDetector:
    """The detector of `model.granularity` and `model.fusion`, with pretrained parts where the config names them.

    Weights of a backbone or a BERT that `model.init_from` has are not read, nor downloaded.
    """
    if not config.init_from:
        return _assembled(config)
    bare = replace(config, backbone=replace(config.backbone, weights=""))
    if config.text.name in BERTS:
        bare = replace(bare, text=replace(config.text, pretrained=""))
    found = _assembled(bare)
    new = load_detector(found, config.init_from).new
    if bare != config and (_lacks_vocabulary(found) or any(name.startswith(PRETRAINED) for name in new)):
        found = _assembled(config)
        load_detector(found, config.init_from)
    return found


def build_appearance(config: ModelConfig) -> Appearance | None:
    """The network of `model.appearance`, with pretrained weights where the config names them.

    As the backbone of a published detector it has that one's weights.
    """
    if not config.appearance.name:
        return None
    if config.appearance.name == BACKBONE and config.init_from:
        network = Appearance(config.appearance, replace(config.backbone, weights=""))
        if load_backbone(network.model, config.init_from):
            network.pretrained = True
            return network
    return Appearance(config.appearance, config.backbone)


def warn_of_random_appearance(detector: PromptedDetector) -> None:
    """Say it where a new detector, or a new network in one, compares appearance by random weights."""
    if detector.appearance is not None and not detector.appearance.pretrained:
        log.warning(
            "model.appearance: %s has random weights, which tell nothing apart: set model.backbone.weights, or of "
            "another network model.appearance.weights",
            detector.appearance.name,
        )


def _lacks_vocabulary(found: PromptedDetector) -> bool:
    return isinstance(found.text_encoder, BertEncoder) and not found.text_encoder.tokenizer.pieces


def _assembled(config: ModelConfig) -> PromptedDetector:
    """As `build_detector`, without `model.init_from`."""
    sizes = config.transformer
    shared = (config.width, sizes.heads, config.num_levels, sizes.points, sizes.ffn, sizes.dropout)
    appearance = build_appearance(config)
    prior = config.prior if config.similarity == "scaled" else None
    backbone = Backbone(config.backbone)
    parts: dict[str, Any] = {
        "backbone": backbone,
        "neck": Neck(backbone.channels, config.width, config.num_levels),
        "text_encoder": build_text_encoder(config),
        "visual_encoder": VisualPromptEncoder(
            config.visual, config.width, sizes.heads, config.num_levels, sizes.points, sizes.dropout
        ),
        "encoder": DeformableEncoder(sizes.encoder_layers, *shared),
        "selection": QuerySelection(
            config.width, config.num_queries, config.anchor_size, prior, prompt_bias=config.prompt_bias
        ),
        "decoder": Decoder(
            sizes.decoder_layers,
            *shared,
            context=config.fusion == "early",
            shared_box_head=sizes.shared_box_head,
        ),
        "prior": prior,
        "appearance": appearance,
        "appearance_input": None
        if appearance is None or not config.appearance.input
        else AppearanceInput(appearance.channels, config.width),
        "appearance_term": AppearanceTerm() if config.appearance.learned_weight else None,
        "presence": PresenceHead(config.width, sizes.heads) if config.presence else None,
        "prompt_bias": config.prompt_bias,
    }
    if config.fusion == "late":
        return LateFusionDetector(**parts)
    fusion = (config.width, sizes.heads, sizes.ffn, sizes.dropout, sizes.fusion_drop_path)
    fusions = nn.ModuleList(FusionLayer(*fusion) for _ in range(sizes.encoder_layers))
    return EarlyFusionDetector(fusions, config.max_tokens, **parts)


def build_text_encoder(config: ModelConfig) -> TextEncoder:
    """The text encoder of `model.text` and `model.granularity`, with pretrained weights where the config names them."""
    text = config.text
    if text.name not in BERTS:
        return ClipEncoder(text, config.width, config.granularity)
    encoder = BertEncoder(text, config.width, config.granularity)
    if text.pretrained:
        load_bert(encoder, text.pretrained)
    return encoder
