"""Pictures of 16 bits a colour, of which Pillow gives the upper byte alone."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trex2_lightning.data.images.image_files import ImageError, read_image

COLOURS_OF_PNG = {2: 4, 3: 2, 4: 6}  # by the number of channels


def png(values: NDArray[Any]) -> bytes:
    """Of (H, W, channels)."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, COLOURS_OF_PNG[channels], 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    whole = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def tiff(values: NDArray[Any], order: str, orientation: int = 1) -> bytes:
    """Of (H, W, channels), uncompressed, in the order of bytes "<" or ">"."""
    height, width, channels = values.shape
    content = values.astype(f"{order}u2").tobytes()
    after = 8 + 2 + 12 * 10 + 4  # where what has no room in the head's entries begins
    entries = [(256, width), (257, height), (258, after), (259, 1), (262, 2), (273, after + 2 * channels)]
    entries += [(274, orientation), (277, channels), (278, height), (279, len(content))]
    head = b"".join(
        struct.pack(f"{order}HHI", tag, 3 if tag == 258 else 4, channels if tag == 258 else 1)
        + struct.pack(f"{order}I", value)
        for tag, value in entries
    )
    start = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    return start + head + bytes(4) + struct.pack(f"{order}{channels}H", *[16] * channels) + content


def shown(file: Path, content: bytes) -> NDArray[np.uint8]:
    file.write_bytes(content)
    return np.asarray(read_image(file))


@pytest.mark.parametrize(("most", "bits"), [(4095, 12), (1023, 10), (65535, 16)])
def test_colours_are_scaled_by_what_they_hold(tmp_path: Path, most: int, bits: int) -> None:
    values = np.random.default_rng(0).integers(0, most + 1, (3, 4, 3))
    values[0, 0, 0] = most
    expected = values >> (bits - 8)
    assert np.array_equal(shown(tmp_path / "a.png", png(values)), expected)
    clear = np.concatenate([values, np.full((3, 4, 1), 65535)], 2)
    assert np.array_equal(shown(tmp_path / "b.png", png(clear)), expected)
    for order in "<>":
        assert np.array_equal(shown(tmp_path / "a.tif", tiff(values, order)), expected)
    with Image.open(tmp_path / "a.tif") as stored:
        assert np.asarray(stored).max() == most >> 8  # what is mended here


def test_such_a_picture_is_turned_as_others_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (3, 4, 3))
    assert np.array_equal(shown(tmp_path / "a.tif", tiff(values, "<", orientation=6)), np.rot90(values >> 4, -1))


def test_grey_beside_transparency_is_refused_where_nothing_of_it_would_be_seen(tmp_path: Path) -> None:
    values = np.stack([np.full((3, 4), 4095), np.full((3, 4), 65535)], 2)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read \(its grey has fewer bits than 16 beside transp"):
        shown(tmp_path / "a.png", png(values))
    assert (shown(tmp_path / "a.png", png(values * [16, 1])) == 255).all()
