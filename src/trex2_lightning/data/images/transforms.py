"""Images to normalised tensors: `torchvision.transforms.v2` with its bounding-box type, and no transform that does
more than call it.

A transform takes a PIL image alone, or with a dictionary of `boxes` (`tv_tensors.BoundingBoxes`) and `labels`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from trex2_lightning.config import DataConfig
from trex2_lightning.data.images.resized_size import resized_size
from trex2_lightning.structures import PixelStatistics


def train_transform(config: DataConfig, statistics: PixelStatistics) -> v2.Compose:
    """Random jitter, crop, flips and size; boxes that a crop leaves without area go, with their labels."""
    augment = config.augment
    steps: list[v2.Transform] = [v2.ToImage()]
    if augment.color_jitter:
        share = augment.color_jitter
        steps.append(v2.ColorJitter(brightness=share, contrast=share, saturation=share))
    if augment.crop:
        steps.append(_Crop(augment.crop))
    steps += [
        v2.SanitizeBoundingBoxes(),
        v2.RandomHorizontalFlip(augment.horizontal_flip),
        v2.RandomVerticalFlip(augment.vertical_flip),
    ]
    sizes = config.train_sizes or [config.size]
    return v2.Compose([*steps, *_resize_and_normalize(sizes, config.max_size, statistics)])


def eval_transform(config: DataConfig, statistics: PixelStatistics) -> v2.Compose:
    """Shorter side `data.size`, or less where the longer one would exceed `data.max_size`."""
    return v2.Compose([v2.ToImage(), *_resize_and_normalize([config.size], config.max_size, statistics)])


class _Crop(torch.nn.Module):
    """SSD's crop: some box has its centre inside, boxes whose centre is outside go.

    A landscape image stays landscape or becomes square, a portrait one stays portrait: what is padded to the size of
    a batch's largest image keeps the orientation that its batch was made for.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.landscape = v2.RandomApply([v2.RandomIoUCrop(min_aspect_ratio=1.0)], p=probability)
        self.portrait = v2.RandomApply([v2.RandomIoUCrop(max_aspect_ratio=1.0)], p=probability)

    def forward(self, image: Tensor, target: dict[str, Any]) -> Any:
        height, width = image.shape[-2:]
        return (self.portrait if height > width else self.landscape)(image, target)


class _ShortestSide(v2.RandomShortestSize):
    """To one of the sizes, as `resized_size` has it."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        size = self.min_size[int(torch.randint(len(self.min_size), ()))]
        return {"size": resized_size(height, width, size, self.max_size)}


def _resize_and_normalize(sizes: list[int], max_size: int, statistics: PixelStatistics) -> list[v2.Transform]:
    return [
        _ShortestSide(sizes, max_size),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(statistics.mean, statistics.std),
    ]
