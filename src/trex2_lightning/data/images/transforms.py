"""Image files to normalised tensors: `torchvision.transforms.v2` with its bounding-box type, and no transform that does
more than call it.

A transform takes a PIL image alone, or with a dictionary of `boxes` (`tv_tensors.BoundingBoxes`) and `labels`.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from trex2_lightning.config import DataConfig
from trex2_lightning.data.images.archives import UNREADABLE, open_image
from trex2_lightning.errors import InputError
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


class ImageError(InputError):
    """An image file cannot be used; the message is one line which names the file.

    It stays one line where a DataLoader's worker raised it, which wraps the message into a traceback.
    """

    def __str__(self) -> str:
        return super().__str__().rstrip().rsplit(f"{type(self).__name__}: ", 1)[-1]


def read_image(path: Path | bytes, size: tuple[int, int] | None = None) -> Image.Image:
    """RGB image, turned upright by its EXIF orientation.

    Args:
        path: a file of any format and colour mode that Pillow reads, or an archive's member (`data.images.archives`);
            or the bytes of one.
        size: height and width that its annotations speak of; they may also speak of the image as stored, not turned.

    Raises:
        ImageError: the file is missing, unreadable, truncated or of another size.
    """
    opened = BytesIO(path) if isinstance(path, bytes) else None
    called = "bytes of an image" if isinstance(path, bytes) else path
    try:
        with opened or open_image(called) as file, Image.open(file) as stored:
            image = ImageOps.exif_transpose(stored)
            if size and image.size != size[::-1] and stored.size == size[::-1]:
                image = stored
            image = _to_rgb(image)
    except FileNotFoundError:
        raise ImageError(f"{called}: no such image file") from None
    except UNREADABLE as error:
        raise ImageError(f"{called}: cannot be read ({str(error).splitlines()[0] or type(error).__name__})") from error
    if size and image.size != size[::-1]:
        raise ImageError(f"{called}: is {image.width} x {image.height}, but its annotations say {size[1]} x {size[0]}")
    return image


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


def _resize_and_normalize(sizes: list[int], max_size: int, statistics: PixelStatistics) -> list[v2.Transform]:
    return [
        v2.RandomShortestSize(sizes, max_size),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(statistics.mean, statistics.std),
    ]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
    return image.convert("RGB")
