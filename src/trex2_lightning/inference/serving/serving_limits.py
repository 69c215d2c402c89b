"""What a client may send: so many bytes, and pictures of so many pixels, known before anything is decoded."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

from trex2_lightning.data.images.archives import PICTURE_FORMATS, UNREADABLE, decoded_size, opened_image
from trex2_lightning.data.images.image_files import ImageError
from trex2_lightning.errors import InputError

MIB = 2**20


class ServingLimits(NamedTuple):
    """Each is an option of `trex2 serve`."""

    max_upload: int  # MiB of one request, and of all pictures of a page
    max_pixels: int  # of one picture
    memory: int  # MiB of image features that are kept for further prompts, of all users


class TooLargeError(InputError):
    """What was sent is beyond a limit; the message names the option that sets it."""


def too_many_bytes(limits: ServingLimits) -> str:
    """What is said of an upload beyond the limit."""
    return f"more than {limits.max_upload} MiB were sent: send less, or start the server with a larger --max-upload"


def check_picture(data: bytes, called: str, limits: ServingLimits) -> None:
    """Look at a picture's header, and decode nothing.

    Args:
        data: a file's content.
        called: the picture, in messages.
        limits: of the server.

    Raises:
        TooLargeError: it has too many pixels.
        ImageError: it is no picture, or of a format that is not read.
    """
    try:
        with opened_image(BytesIO(data)) as image:
            width, height = decoded_size(image)
    except UNREADABLE as error:
        raise ImageError(f"{called}: is no picture, or damaged: send one of {', '.join(PICTURE_FORMATS)}") from error
    if width * height > limits.max_pixels:
        raise TooLargeError(
            f"{called}: has more than {limits.max_pixels:,} pixels: send a smaller one, or start the server with a "
            "larger --max-pixels"
        )
