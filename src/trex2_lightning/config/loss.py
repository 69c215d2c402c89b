"""Settings of the losses."""

from __future__ import annotations

from dataclasses import dataclass, field

from trex2_lightning.config.checks import ConfigError


@dataclass
class DenoisingConfig:
    """Contrastive denoising (DINO section 3.3)."""

    queries: int = 100  # positive queries per image; 0: no denoising
    label_noise: float = 0.5  # half of this share of the labels is replaced by a random category, as DINO does
    box_noise: float = 1.0  # 1: a corner moves by up to half the box's side


@dataclass
class CostConfig:
    """Costs of the Hungarian matching."""

    classification: float = 2.0
    l1: float = 5.0
    giou: float = 2.0


@dataclass
class AlignmentConfig:
    """What pulls the visual vectors of a category to its text vector, in visual iterations."""

    weight: float = 1.0  # of InfoNCE; 0: visual iterations leave the text encoder alone
    temperature: float = 1.0  # dot products are divided by it
    normalize: bool = False  # compare directions alone
    symmetric: bool = False  # text against visual vectors too, half of the weight each
    relation: float = 0.0  # weight of DETR-ViP's relation distillation
    text_temperature: float = 0.07  # of the texts' likeness that it teaches
    visual_temperature: float = 0.1  # of the visual vectors' likeness that it trains

    def __post_init__(self) -> None:
        for name in ("temperature", "text_temperature", "visual_temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"loss.alignment.{name}={getattr(self, name)} must be more than 0")


@dataclass
class LossConfig:
    """Weights of the loss terms."""

    classification: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    presence: float = 1.0  # whether a category is in an image at all, where model.presence
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    cost: CostConfig = field(default_factory=CostConfig)
    denoising: DenoisingConfig = field(default_factory=DenoisingConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
