"""Image files to upright RGB, whatever they hold."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from trex2_lightning.data.images.archives import UNREADABLE, decoded_size, open_image, opened_image, too_large
from trex2_lightning.errors import InputError

DEPTHS = (8, 10, 12, 14, 16)  # bits that numbers of 16 or 32 may hold
# Of colours of 16 bits Pillow keeps the upper byte alone. In the other order of bytes that is the lower one.
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_UPPER_BYTES = {
    f"{mode};16{order}": f"{mode};16{other}" for mode in ("RGB", "RGBA") for order, other in _OTHER_ORDER.items()
}
BLOCK = 2**20  # numbers that are scaled at once, as floats of eight bytes


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
            if wrong := too_large(*decoded_size(stored)):
                raise ImageError(f"{called}: {wrong}")
            image = _in_rgb(stored, file, size)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{called}: no such image file") from None
    except UNREADABLE as error:
        raise ImageError(f"{called}: cannot be read ({_reason(error)})") from error
    if size and image.size != size[::-1]:
        raise ImageError(f"{called}: is {image.width} x {image.height}, but its annotations say {size[1]} x {size[0]}")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of an image of any mode, whose transparency goes."""
    if image.mode.startswith(("I", "F")):  # Pillow would clip them to 8 bits instead of scaling them
        return Image.fromarray(_in_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _in_rgb(stored: Image.Image, file: BinaryIO, size: tuple[int, int] | None) -> Image.Image:
    """Upright; of an image that was not read yet, and its file."""
    raw = _raw_mode(stored)
    image = _upright(stored, size)
    if raw in _UPPER_BYTES:
        return _joined(image, _upright(_lower_bytes(file), size))
    if raw == "LA;16B" and image.getextrema()[0][1] < 64:  # type: ignore[index]  # its lower byte cannot be had
        raise OSError("its grey has fewer bits than 16 beside transparency: save it without transparency")
    return to_rgb(image)


def _upright(stored: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Turned by its EXIF orientation, unless it has the `size`, height and width, as it is stored alone."""
    turned = ImageOps.exif_transpose(stored)
    return stored if size and turned.size != size[::-1] and stored.size == size[::-1] else turned


def _raw_mode(image: Image.Image) -> str:
    """How the pixels of an image that was not read yet lie in its file, as Pillow calls it."""
    arguments = image.tile[0][3] if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _lower_bytes(file: BinaryIO) -> Image.Image:
    image = opened_image(file)
    assert isinstance(image, ImageFile.ImageFile)
    tiles = []
    for decoder, extent, offset, arguments in image.tile:
        other = _UPPER_BYTES[_raw_mode(image)]
        tiles.append((decoder, extent, offset, (other, *arguments[1:]) if isinstance(arguments, tuple) else other))
    image.tile = tiles  # type: ignore[assignment]  # Pillow 10 has plain tuples
    return image


def _joined(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """RGB of the bytes of its colours."""
    high, low = (np.asarray(image)[..., :3].astype(np.uint16) for image in (upper, lower))
    return Image.fromarray(_in_eight_bits(high * 256 + low))


def _in_eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Whole numbers or floats, scaled by what a camera means by them: the least of `DEPTHS` that holds the brightest.

    Floats up to 1 are shares of white; numbers beyond the last depth are scaled by the brightest.
    """
    blocks = np.array_split(values, values.size // BLOCK + 1)
    most = max(_light(block).max(initial=0) for block in blocks)
    if np.issubdtype(values.dtype, np.floating) and most <= 1:
        return np.concatenate([(_light(block) * 255).round().astype(np.uint8) for block in blocks])
    steps = next((2.0 ** (bits - 8) for bits in DEPTHS if most < 2**bits), (most + 1) / 256)
    return np.concatenate([(_light(block) / steps).astype(np.uint8) for block in blocks])


def _light(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0).clip(min=0)


def _reason(error: BaseException) -> str:
    """Without the place in memory that Pillow tells of bytes."""
    return str(error).splitlines()[0].partition(" <_io")[0] if str(error) else type(error).__name__
