"""Pictures as a detector takes them and what it has seen of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trex2_lightning.data.sampling.collate import STRIDE, pad
from trex2_lightning.errors import InputError
from trex2_lightning.inference.inputs import Picture, as_picture
from trex2_lightning.structures import FeatureMaps, Images


class EncodedImage(NamedTuple):
    """What a detector has seen of an image, for any prompts."""

    features: FeatureMaps  # B = 1
    size: tuple[int, int]  # height and width of the original image


AnyPicture = Picture | Tensor
AnyImage = AnyPicture | EncodedImage


class Alike(NamedTuple):
    """Pictures of some that are padded to one size, and so as each of them is alone.

    In larger padding a picture's scores would be others: a backbone's convolutions and the neck's normalisation see it
    (docs/deviations.md).
    """

    places: tuple[int, ...]  # among the pictures
    images: Images


def padded_batches(pictures: Sequence[Image.Image], transform: Callable[[Image.Image], Tensor]) -> tuple[Alike, ...]:
    """Pictures as padded batches, each resized by `transform` on its own; all of one size are in one batch."""
    alike: dict[tuple[int, int], list[int]] = {}
    pixels = [transform(picture) for picture in pictures]
    for place, (_, height, width) in enumerate(tensor.shape for tensor in pixels):
        alike.setdefault((-(-height // STRIDE), -(-width // STRIDE)), []).append(place)
    sizes = [(picture.height, picture.width) for picture in pictures]
    return tuple(
        Alike(tuple(some), pad([pixels[i] for i in some], [sizes[i] for i in some])) for some in alike.values()
    )


def picture_of(image: AnyPicture) -> Image.Image:
    """An image in RGB, of all that `as_picture` takes, or of a tensor.

    Args:
        image: a tensor is (3, H, W) or (1, H, W), of uint8, or of floats in [0, 1].

    Raises:
        InputError: an unreadable file, or another array or tensor.
    """
    return as_picture(_channels_last(image) if isinstance(image, Tensor) else image)


def _channels_last(image: Tensor) -> NDArray[np.uint8]:
    """(3 or 1, H, W) to (H, W, 3) or (H, W)."""
    values = image.detach().cpu()
    if values.is_floating_point() and values.numel() and values.min() >= 0 and values.max() <= 1:
        values = (values * 255).round().byte()
    if values.dim() != 3 or values.shape[0] not in (1, 3) or values.dtype != torch.uint8 or not values.numel():
        raise InputError(
            f"a tensor {tuple(image.shape)} of {str(image.dtype).removeprefix('torch.')} is no image: give (3, height, "
            "width) of uint8, or of floats from 0 to 1"
        )
    return values.permute(1, 2, 0).squeeze(2).numpy()
