"""What people have of images, phrases and names, to what detectors read, exported ones too: so without PyTorch."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trex2_lightning.data.images.image_files import read_image, to_rgb
from trex2_lightning.errors import InputError
from trex2_lightning.structures import LONGEST_PHRASE

Picture = str | Path | bytes | Image.Image | NDArray[np.uint8]
# A sentence of several names, as Grounding DINO is asked elsewhere: "red . blue ." or "a cat. a remote control."
SENTENCE = re.compile(r".*\s\.(\s.*)?|.*\w\.\s+\S.*\.", re.DOTALL)


def as_picture(image: Picture) -> Image.Image:
    """An image in RGB.

    Args:
        image: a file, by its path or by its bytes; a PIL image of any mode; or an array (H, W, 3) or (H, W) of uint8.

    Raises:
        InputError: an unreadable file, or another array.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, bytes):
        return read_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or not image.size:
            raise InputError(
                f"an array {image.shape} of {image.dtype} is no image: give (height, width, 3) of uint8, in RGB"
            )
        return Image.fromarray(image).convert("RGB")
    raise InputError(f"a {type(image).__name__} is no image: give a path, a PIL image, an array or a tensor")


def as_phrases(phrases: str | Sequence[str]) -> tuple[str, ...]:
    """Phrases, of which a single one may be a text.

    Raises:
        InputError: one is a sentence of several names.
    """
    phrases = as_names(phrases)
    for phrase in phrases:
        if len(phrase) <= LONGEST_PHRASE and SENTENCE.fullmatch(phrase):  # a longer one is refused as a phrase
            names = [name.strip() for name in re.split(r"\.(?:\s|$)", phrase) if name.strip()]
            raise InputError(
                f"'{phrase}' would be one name, dots included: give each on its own, without the dots: "
                f"{', '.join(map(repr, names))}"
            )
    return phrases


def as_names(names: str | Collection[str]) -> tuple[str, ...]:
    """Names, of which a single one may be a text."""
    return (names,) if isinstance(names, str) else tuple(names)
