"""Pictures to pixels in NumPy, the same to the last bit as `data.images.transforms.eval_transform` makes them.

Not Pillow's resizing: torchvision's weights have 15 bits and Pillow's 22, so that values may differ by 1 of 255.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trex2_lightning.data.images.resized_size import resized_size
from trex2_lightning.inference.exported import ExportedDetector

BITS = 22  # the most that weights have behind the point
TOO_LARGE = 2**15  # that a weight stays below


def image_arrays(picture: Image.Image, settings: ExportedDetector) -> dict[str, NDArray[Any]]:
    """What the graphs read of an RGB image: `pixels` (1, 3, H, W) float32 and which are `valid` (1, H, W)."""
    small = shortest_side(np.asarray(picture), settings.size, settings.max_size)
    mean, std = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
    normal = (small.astype(np.float32) * np.float32(1 / 255) - mean) / std
    height, width = (-(-side // settings.stride) * settings.stride for side in small.shape[:2])
    pixels, valid = np.zeros((1, 3, height, width), np.float32), np.zeros((1, height, width), bool)
    pixels[0, :, : small.shape[0], : small.shape[1]] = normal.transpose(2, 0, 1)
    valid[0, : small.shape[0], : small.shape[1]] = True
    return {"pixels": pixels, "valid": valid}


def shortest_side(image: NDArray[np.uint8], size: int, longest: int) -> NDArray[np.uint8]:
    """An image (h, w, 3) whose shorter side is `size`, or less where the longer one would exceed `longest`."""
    height, width = image.shape[:2]
    return resized(image, *resized_size(height, width, size, longest))


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(h, w, 3) -> (height, width, 3), bilinear with antialiasing, in the integers of PyTorch's `interpolate`."""
    if image.shape[1] != width:
        image = _rows_resized(image.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return image if image.shape[0] == height else _rows_resized(image, height)


def _rows_resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(h, w, 3) -> (size, w, 3)."""
    first, weights, bits = _weights(image.shape[0], size)
    total = np.full((size, *image.shape[1:]), 1 << (bits - 1), np.int32)
    for place in range(weights.shape[1]):
        row = image[np.minimum(first + place, image.shape[0] - 1)]
        total += row * weights[:, place, None, None]
    return (total >> bits).clip(0, 255).astype(np.uint8)


def _weights(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Of each of the `after` places the first it reads of `before`, weights of it and those that follow, their bits."""
    scale = before / after
    support = max(scale, 1.0)  # of the triangle that is the weights' shape
    centre = scale * (np.arange(after) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), before) - first
    place = np.arange(int(np.ceil(support)) * 2 + 1)
    shares = 1 - np.abs((place + first[:, None] - centre[:, None] + 0.5) / support)
    shares = np.where(place < count[:, None], shares.clip(min=0), 0)
    shares /= shares.sum(1, keepdims=True)
    bits = next(
        bits for bits in range(BITS + 1) if bits == BITS or int(0.5 + shares.max() * 2 ** (bits + 1)) >= TOO_LARGE
    )
    return first, (0.5 + shares * 2**bits).astype(np.int32), bits
