"""Appearance: what a frozen pretrained network sees of exemplars and of found boxes, compared without any training.

Ours, not T-Rex2's (docs/deviations.md): on little data a learned visual prompt throws away what pretrained features
knew. Others name boxes by frozen features too (DE-ViT, arXiv 2309.12969; "No time to train", arXiv 2507.02798).

B images, N boxes, C categories, R exemplars, M of them of one category, A channels of all maps together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from trex2_lightning.config import AppearanceConfig, BackboneConfig
from trex2_lightning.models.weights import load_backbone_weights, pixel_statistics, timm_model
from trex2_lightning.ops.boxes import cxcywh_to_xyxy
from trex2_lightning.ops.padding import unpadded_share
from trex2_lightning.ops.pixels import renormalize
from trex2_lightning.structures import AppearanceMaps, ExemplarAppearance, Exemplars, Images

BACKBONE = "backbone"  # the name that stands for the detector's own, as it was before training
GRID = 4  # samples along each side of a box
POINT_SIDE = 0.15  # a point's surroundings, as a share of the image's sides


class Appearance(nn.Module):
    """Vectors of boxes by a frozen network, and how much alike they are.

    A vector is the mean of RoIAligned features of each map, of unit length, all maps joined. `fit` learns from boxes
    with names which differences tell kinds apart (linear discriminant analysis); before it all count alike.
    """

    mean: Tensor
    transform: Tensor
    temperature: Tensor

    def __init__(self, config: AppearanceConfig, backbone: BackboneConfig) -> None:
        super().__init__()
        self.name = backbone.name if config.name == BACKBONE else config.name
        own = config.name == BACKBONE
        source = backbone if own else replace(BackboneConfig(), name=config.name, weights=config.weights)
        source = replace(source, out_indices=config.out_indices)
        options: dict[str, Any] = dict(source.options) | config.options
        section = "model.backbone" if own else "model.appearance"
        self.before, self.pixels = pixel_statistics(backbone), pixel_statistics(source, section)
        model: Any = timm_model(source, options, section)
        if source.weights not in ("", "timm"):
            load_backbone_weights(model, source.name, source.weights)
        self.model: nn.Module = model.requires_grad_(False)
        # What else its vectors depend on, beside its weights.
        self.made_by = f"{self.name} maps {source.out_indices} {options or ''} pixels {[*map(list, self.pixels)]}"
        self.channels: int = sum(model.feature_info.channels())
        self.register_buffer("mean", torch.zeros(self.channels))
        self.register_buffer("transform", torch.eye(self.channels))
        self.register_buffer("temperature", torch.tensor(0.03))
        self.train()

    def train(self, mode: bool = True) -> Self:
        """The network stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    @torch.no_grad()
    def forward(self, images: Images) -> AppearanceMaps:
        """What the network sees of B images."""
        pixels = renormalize(images.pixels, images.valid, self.before, self.pixels)
        return AppearanceMaps(tuple(self.model(pixels)), unpadded_share(images.valid))

    @torch.no_grad()
    def exemplars(self, exemplars: Exemplars, maps: AppearanceMaps) -> ExemplarAppearance:
        """Of C categories in B images, each with M exemplars: R = C * M."""
        boxes = exemplars.boxes
        if exemplars.kind == "point":
            boxes = torch.cat([boxes[..., :2], torch.full_like(boxes[..., :2], POINT_SIDE)], -1)
        category = torch.arange(boxes.shape[1], device=boxes.device).repeat_interleave(boxes.shape[2])
        return ExemplarAppearance(self.vectors(maps, boxes.flatten(1, 2)), exemplars.valid.flatten(1), category)

    @torch.no_grad()
    def vectors(self, maps: AppearanceMaps, boxes: Tensor) -> Tensor:
        """Boxes (B, N, 4), cxcywh in [0, 1], to their vectors (B, N, A), as the network gives them."""
        with torch.autocast(boxes.device.type, enabled=False):
            corners = cxcywh_to_xyxy(boxes.float()).clamp(0, 1) * maps.extent.repeat(1, 2)[:, None]
            pooled = []
            for features in maps.maps:
                sides = corners.new_tensor(features.shape[:-3:-1]).repeat(2)  # width, height, width, height
                rois = [*(corners * sides)]
                found = roi_align(features.float(), rois, GRID, sampling_ratio=2, aligned=True).mean((2, 3))
                pooled.append(F.normalize(found, dim=-1))
            joined = torch.cat(pooled, -1) / len(pooled) ** 0.5
        return joined.unflatten(0, boxes.shape[:2])

    def similarity(self, vectors: Tensor, exemplars: ExemplarAppearance, num_categories: int) -> Tensor:
        """How much boxes (B, N, A) look like each category's exemplars: (B, N, C), at most 1.

        A soft maximum over the exemplars, whose number says nothing: t * log(mean(exp(cosine / t))). -inf where a
        category has none.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            cosine = self._compared(vectors) @ self._compared(exemplars.vectors).transpose(1, 2)  # (B, N, R)
        scaled = (cosine / self.temperature).masked_fill(~exemplars.valid[:, None], -torch.inf)
        place = exemplars.category.expand(*scaled.shape)
        size = (*scaled.shape[:2], num_categories)
        top = scaled.new_full(size, -torch.inf).scatter_reduce(2, place, scaled, "amax")
        finite = top.masked_fill(top == -torch.inf, 0)
        total = scaled.new_zeros(size).scatter_add(2, place, (scaled - finite.gather(2, place)).exp())
        count = scaled.new_zeros(len(exemplars.valid), num_categories)
        count = count.scatter_add(1, place[: len(count), 0], exemplars.valid.to(count))
        alike = (finite + (total / count.clamp(min=1)[:, None]).log()) * self.temperature
        return alike.masked_fill(count[:, None] == 0, -torch.inf)

    def fit(self, vectors: Tensor, labels: Tensor, shrinkage: float = 0.3, temperature: float = 0.05) -> None:
        """Learn from boxes (n, A) of known kinds (n,) which differences are of no matter: those within a kind.

        Fisher's discriminant with a covariance shrunk to a multiple of the identity (Ledoit and Wolf's form): vectors
        are compared after it is made white. Kinds that are not among these gain as much.
        """
        kinds = F.one_hot(labels.unique(return_inverse=True)[1]).to(vectors)
        means = (kinds.T @ vectors) / kinds.sum(0)[:, None]
        within = vectors - kinds @ means
        covariance = within.T @ within / len(within)
        eye = torch.eye(len(covariance)).to(covariance)
        covariance = (1 - shrinkage) * covariance + shrinkage * covariance.diagonal().mean() * eye
        values, directions = torch.linalg.eigh(covariance.double())
        self.transform.copy_(directions @ (values.rsqrt()[:, None] * directions.T))
        self.mean.copy_(vectors.mean(0))
        self.temperature.fill_(temperature)

    def _compared(self, vectors: Tensor) -> Tensor:
        return F.normalize((vectors - self.mean) @ self.transform, dim=-1)


class AppearanceInput(nn.Module):
    """What a frozen network sees of queries' boxes and of exemplars, added to what the detector has learned of them.

    Both begin at zero, so a detector starts from what it was without.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.of_queries = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        self.of_exemplars = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
