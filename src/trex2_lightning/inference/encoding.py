"""Pictures as a detector takes them and what it has seen of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from trex2_lightning.data.images.transforms import read_image
from trex2_lightning.data.sampling.collate import pad
from trex2_lightning.structures import FeatureMaps, Images


class EncodedImage(NamedTuple):
    """What a detector has seen of an image, for any prompts."""

    features: FeatureMaps  # B = 1
    size: tuple[int, int]  # height and width of the original image


Picture = Path | bytes | Image.Image  # a file, what is in one, or what was read of it
AnyImage = Picture | EncodedImage


def to_batch(pictures: Sequence[Picture], transform: Callable[[Image.Image], Tensor]) -> Images:
    """B pictures as one padded batch, each resized by `transform` on its own.

    Raises:
        ImageError: an unreadable file.
    """
    opened = [p.convert("RGB") if isinstance(p, Image.Image) else read_image(p) for p in pictures]
    return pad([transform(picture) for picture in opened], [(picture.height, picture.width) for picture in opened])
