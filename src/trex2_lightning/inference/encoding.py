"""Pictures as a detector takes them and what it has seen of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from PIL import Image
from torch import Tensor

from trex2_lightning.data.sampling.collate import STRIDE, pad
from trex2_lightning.inference.inputs import Picture
from trex2_lightning.structures import FeatureMaps, Images


class EncodedImage(NamedTuple):
    """What a detector has seen of an image, for any prompts."""

    features: FeatureMaps  # B = 1
    size: tuple[int, int]  # height and width of the original image


AnyImage: TypeAlias = "Picture | EncodedImage"


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
