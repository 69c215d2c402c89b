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

from trex2_lightning.config import AppearanceConfig, BackboneConfig
from trex2_lightning.models.backbone import any_size_model, returns_channels_last
from trex2_lightning.models.weights import pixel_statistics
from trex2_lightning.ops.boxes import cxcywh_to_xyxy
from trex2_lightning.ops.padding import unpadded_share
from trex2_lightning.ops.pixels import renormalize
from trex2_lightning.structures import AppearanceMaps, ExemplarAppearance, Exemplars, Images

BACKBONE = "backbone"  # the name that stands for the detector's own, as it was before training
GRID = 8  # samples along each side of a box: RoIAlign's of 4 x 4 cells, two in each
MOST_COSINES = 2**22  # of boxes and exemplars, that are in memory at once: 16 MiB
WHOLE_CELLS = 32  # pixels; batches have sides of their multiples, which leave no cell of most maps in part outside
LOGIT_SCALES = tuple(10 * 2 ** (step / 2) for step in range(8))  # 10 to 113, that `fit_scale` chooses among
POINT_SIDE = 0.15  # a point's surroundings, as a share of the image's sides


class Appearance(nn.Module):
    """Vectors of boxes by a frozen network, and how much alike they are.

    A vector is the mean of RoIAligned features of each map, of unit length, all maps joined. `fit` learns from boxes
    with names which differences tell kinds apart (linear discriminant analysis), `fit_scale` from others how sharply;
    before it all differences count alike.
    """

    mean: Tensor
    transform: Tensor
    temperature: Tensor
    logit_scale: Tensor

    def __init__(self, config: AppearanceConfig, backbone: BackboneConfig) -> None:
        super().__init__()
        self.name = backbone.name if config.name == BACKBONE else config.name
        own = config.name == BACKBONE
        source = backbone if own else replace(BackboneConfig(), name=config.name, weights=config.weights)
        source = replace(source, out_indices=config.out_indices)
        options: dict[str, Any] = dict(source.options) | config.options
        section = "model.backbone" if own else "model.appearance"
        self.before, self.pixels = pixel_statistics(backbone), pixel_statistics(source, section)
        model = any_size_model(source, options, section)
        self.pretrained = bool(source.weights)  # else random, until weights are loaded into it
        self.model: nn.Module = model.requires_grad_(False)
        self.scale = config.scale
        # What else its vectors depend on, beside its weights.
        self.made_by = f"{self.name} maps {source.out_indices} {options or ''} pixels {[*map(list, self.pixels)]}"
        if self.scale != 1:
            self.made_by += f" scale {self.scale}"
        self.channels_last = returns_channels_last(self.name)
        self.channels: int = sum(model.feature_info.channels())
        coarsest = max(model.feature_info.reduction())
        self.cell: int = WHOLE_CELLS if WHOLE_CELLS % coarsest == 0 else coarsest
        self.register_buffer("mean", torch.zeros(self.channels))
        self.register_buffer("transform", torch.eye(self.channels))
        self.register_buffer("temperature", torch.tensor(0.03))
        self.register_buffer("logit_scale", 1 / self.temperature)
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
        if self.scale != 1 or self.cell != WHOLE_CELLS:
            size = [max(1, round(side * self.scale / self.cell)) * self.cell for side in pixels.shape[-2:]]
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        maps = self.model(pixels)
        maps = tuple(x.permute(0, 3, 1, 2) for x in maps) if self.channels_last else (*maps,)
        return AppearanceMaps(maps, unpadded_share(images.valid))

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
                found = box_means(features.float(), corners)
                pooled.append(F.normalize(found, dim=-1))
            return torch.cat(pooled, -1) / len(pooled) ** 0.5

    @torch.no_grad()
    def whitened(self, exemplars: ExemplarAppearance) -> ExemplarAppearance:
        """The same exemplars, for many images: what `similarity` makes of their vectors is computed here, once."""
        with torch.autocast(exemplars.vectors.device.type, enabled=False):
            return exemplars._replace(white=self._compared(exemplars.vectors))

    def similarity(self, vectors: Tensor, exemplars: ExemplarAppearance, num_categories: int) -> Tensor:
        """How much boxes (B, N, A) look like each category's exemplars: (B, N, C), at most 1.

        A soft maximum over the exemplars, whose number says nothing: t * log(mean(exp(cosine / t))). -inf where a
        category has none. The cosines of all boxes and exemplars never lie in memory at once.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            boxes = self._compared(vectors)
            white = self._compared(exemplars.vectors) if exemplars.white is None else exemplars.white
            shared = len(white) == 1  # exemplars that hold for every image meet the boxes of all in one product
            boxes = boxes.flatten(0, 1)[None] if shared else boxes  # (B or 1, N or B * N, A)
            total = boxes.new_zeros(len(white), num_categories, boxes.shape[1])
            rows = max(1, MOST_COSINES // max(1, boxes.shape[:2].numel()))
            parts = zip(
                white.split(rows, 1), exemplars.valid.split(rows, 1), exemplars.category.split(rows), strict=True
            )
            for some, valid, category in parts:
                cosine = some @ boxes.transpose(1, 2)
                # No cosine is above 1, and e to the power of -2 / t is a float for any t above 0.023.
                near = cosine.sub_(1).div_(self.temperature).exp_().mul_(valid[..., None])
                total.index_add_(1, category, near)
        count = total.new_zeros(total.shape[:2]).index_add_(1, exemplars.category, exemplars.valid.to(total))
        mean = total / count.clamp(min=1)[..., None]
        return (1 + self.temperature * mean.log()).transpose(1, 2).reshape(*vectors.shape[:2], num_categories)

    def log_share(self, similarity: Tensor) -> Tensor:
        """Logarithm of the share (B, N, C) that a category has of a box, by `similarity` (B, N, C)."""
        return (similarity * self.logit_scale).log_softmax(-1)

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
        self.logit_scale.fill_(1 / temperature)

    def fit_scale(self, vectors: Tensor, labels: Tensor, exemplars: ExemplarAppearance, num_categories: int) -> None:
        """Choose the logit scale by which boxes (n, A) most likely are of their categories (n,).

        By boxes that neither `fit` nor the exemplars have; those of a category without exemplars do not count, and
        where there are no others it stays as it is.
        """
        similarity = self.similarity(vectors[None], exemplars, num_categories)[0].double()
        known = similarity.gather(1, labels[:, None])[:, 0] > -torch.inf
        if known.any():
            losses = [float(F.cross_entropy(similarity[known] * scale, labels[known])) for scale in LOGIT_SCALES]
            self.logit_scale.fill_(LOGIT_SCALES[losses.index(min(losses))])

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


class AppearanceTerm(nn.Module):
    """What a box's likeness to the exemplars counts in its logits, learned in training; nothing at the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, similarity: Tensor, temperature: Tensor, category: Tensor) -> Tensor:
        """Terms (B, N, T) of the tokens of `category` (T,), by `Appearance.similarity` (B, N, C); 0 without exemplars.

        In units of the temperature, as whatever else is learned of likeness begins far from its scale.
        """
        of_tokens = similarity[..., category.clamp(min=0)] / temperature
        shown = (category >= 0) & (of_tokens > -torch.inf)
        return (self.weight * of_tokens.masked_fill(~shown, 0) + self.bias) * shown


def box_means(features: Tensor, corners: Tensor) -> Tensor:
    """The mean of a map over boxes, as the mean of RoIAlign's aligned cells (Mask R-CNN) gives it.

    A bilinear sample is a product of weights along the two axes, and a box's samples lie on a grid: so the weights of a
    mean are such a product too, and the means of all boxes one matrix product.

    Args:
        features: (B, channels, height, width).
        corners: (B, N, 4), x1, y1, x2, y2 in [0, 1] of the map.

    Returns:
        (B, N, channels).
    """
    height, width = features.shape[-2:]
    down, across = _cell_weights(corners[..., 1::2], height), _cell_weights(corners[..., ::2], width)
    weights = (down[..., None] * across[..., None, :]).flatten(2)  # (B, N, height * width)
    return weights @ features.flatten(2).transpose(1, 2)


def _cell_weights(span: Tensor, size: int) -> Tensor:
    """What each of a row of cells counts in the mean over spans (..., 2), first and last, of [0, 1]: (..., size)."""
    steps = (torch.arange(GRID, device=span.device) + 0.5) / GRID
    first, last = span[..., None].unbind(-2)
    places = ((first + (last - first) * steps) * size - 0.5).clamp(0, size - 1)  # (..., GRID)
    distance = places[..., None] - torch.arange(size, device=span.device)
    return (1 - distance.abs()).clamp(min=0).mean(-2)
