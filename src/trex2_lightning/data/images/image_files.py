"""Image files to upright RGB, whatever they hold."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trex2_lightning.data.images.archives import UNREADABLE, open_image, opened_image, too_large
from trex2_lightning.errors import InputError

DEPTHS = (8, 10, 12, 14, 16)  # bits that numbers of 16 or 32 may hold


class ImageError(InputError):
    """An image file cannot be used; the message is one line which names the file.

    It stays one line where a DataLoader's worker raised it, which wraps the message into a traceback.
    """

    def __str__(self) -> str:
        return super().__str__().rstrip().rsplit(f"{type(self).__name__}: ", 1)[-1]


def read_image(path: Path | bytes, size: tuple[int, int] | None = None) -> Image.Image:
    """RGB image, turned upright by its EXIF orientation.

    Args:
        path: a file of `PICTURE_FORMATS` in any colour mode, or an archive's member (`data.images.archives`);
            or the bytes of one.
        size: height and width that its annotations speak of; they may also speak of the image as stored, not turned.

    Raises:
        ImageError: the file is missing, unreadable, truncated, of another size or of more pixels than `MAX_PIXELS`.
    """
    opened = BytesIO(path) if isinstance(path, bytes) else None
    called = "bytes of an image" if isinstance(path, bytes) else path
    try:
        with opened or open_image(called) as file, opened_image(file) as stored:
            if wrong := too_large(*stored.size):
                raise ImageError(f"{called}: {wrong}")
            image = ImageOps.exif_transpose(stored)
            if size and image.size != size[::-1] and stored.size == size[::-1]:
                image = stored
            image = _to_rgb(image)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{called}: no such image file") from None
    except UNREADABLE as error:
        raise ImageError(f"{called}: cannot be read ({_reason(error)})") from error
    if size and image.size != size[::-1]:
        raise ImageError(f"{called}: is {image.width} x {image.height}, but its annotations say {size[1]} x {size[0]}")
    return image


def _in_eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Whole numbers or floats, scaled by what a camera means by them: the least of `DEPTHS` that holds the brightest.

    Floats up to 1 are shares of white; numbers beyond the last depth are scaled by the brightest.
    """
    light = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0).clip(min=0)
    most = light.max(initial=0)
    if np.issubdtype(values.dtype, np.floating) and most <= 1:
        return (light * 255).round().astype(np.uint8)
    steps = next((2.0 ** (bits - 8) for bits in DEPTHS if most < 2**bits), (most + 1) / 256)
    return (light / steps).astype(np.uint8)


def _reason(error: BaseException) -> str:
    """Without the place in memory that Pillow tells of bytes."""
    return str(error).splitlines()[0].partition(" <_io")[0] if str(error) else type(error).__name__


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # Pillow would clip them to 8 bits instead of scaling them
        return Image.fromarray(_in_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
    return image.convert("RGB")
