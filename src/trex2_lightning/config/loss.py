"""Settings of the losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trex2_lightning.config.checks import ConfigError


@dataclass
class DenoisingConfig:
    """Contrastive denoising (DINO section 3.3)."""

    queries: int = 100  # positive queries per image; 0: no denoising
    limit: int = 300  # most boxes of an image that are noised, drawn anew in every step; all of them are matched
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

    weight: float = 1.0  # of InfoNCE; 0: none
    # Each category's mean over the images of a forward pass and of all ranks, among all phrases there, negatives too
    # (step); or each image's own vectors, among the image's own categories (image: T-Rex2, equation 9).
    scope: Literal["step", "image"] = "step"
    normalize: bool = True  # compare directions alone
    temperature: float = 0.1  # similarities are divided by it
    learned_temperature: bool = False  # begins there and is trained with the rest
    detach_text: bool = True  # the text encoder learns from text iterations alone
    symmetric: bool = False  # text against visual vectors too, half of the weight each
    relation: float = 0.0  # weight of DETR-ViP's relation distillation
    text_temperature: float = 0.07  # of the texts' likeness that it teaches
    visual_temperature: float = 0.1  # of the visual vectors' likeness that it trains

    def __post_init__(self) -> None:
        for name in ("temperature", "text_temperature", "visual_temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"loss.alignment.{name}={getattr(self, name)} must be more than 0")
        if self.learned_temperature and not 0.01 <= self.temperature <= 1:
            raise ConfigError(
                f"loss.alignment.temperature={self.temperature} must lie between 0.01 and 1 where it is learned"
            )


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
