"""Drawings for people: boxes on a picture, sheets of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from zlib import crc32

import matplotlib
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trex2_lightning.structures import Exemplar, ExemplarKind

MIN_SIDE = 384  # pixels; labels on smaller pictures would hide the objects
FONT = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
WHITE = (255, 255, 255)  # no label's colour
CELL = 4.0  # inches, width of a picture on a sheet


def draw_boxes(
    image: Image.Image,
    boxes: Tensor,
    labels: Sequence[str],
    scores: Tensor | None = None,
    exemplars: Mapping[str, Sequence[Exemplar]] | None = None,
) -> Image.Image:
    """A copy of the picture with labelled boxes, one colour per label in all pictures; small ones are magnified.

    Args:
        image: any mode.
        boxes: (n, 4) xyxy in pixels.
        labels: n texts.
        scores: (n,) written behind the labels; the best is drawn on top.
        exemplars: by category, on top of all: in white with a black edge.
    """
    factor = math.ceil(MIN_SIDE / min(image.size))
    image = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    side = min(image.size)
    canvas, font = ImageDraw.Draw(image), ImageFont.truetype(str(FONT), max(12, side // 32))
    corners = (boxes * factor).tolist()
    order = range(len(labels)) if scores is None else scores.argsort().tolist()
    for i in order:
        canvas.rectangle(corners[i], outline=label_colour(labels[i]), width=max(2, side // 200))
    for i in order:
        text = labels[i] if scores is None else f"{labels[i]} {scores[i]:.2f}"
        _write(text, corners[i], image, font, label_colour(labels[i]))
    for name, marks in (exemplars or {}).items():
        for mark in marks:
            box = _mark(mark.kind, [factor * side for side in mark.corners], canvas, width=max(2, side // 200))
            _write(f"prompt: {name}", box, image, font, WHITE)
    return image


def contact_sheet(pictures: Sequence[Image.Image], titles: Sequence[str], path: Path, columns: int) -> None:
    """Write the titled pictures to a PNG, row by row."""
    rows = math.ceil(len(pictures) / columns)
    height = max(picture.height / picture.width for picture in pictures) * CELL + 0.4
    figure = Figure((columns * CELL, rows * height), dpi=120, layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, picture, title in zip(figure.axes, pictures, titles, strict=False):
        axes.imshow(picture)
        axes.set_title(title.encode(errors="backslashreplace").decode(), parse_math=False)  # a file's name may be both
    figure.savefig(path)


def _mark(kind: ExemplarKind, corners: list[float], canvas: ImageDraw.ImageDraw, width: int) -> list[float]:
    """Draw an exemplar: its box, or a disk where it is a point; returns the box of what was drawn."""
    left, top, right, bottom = corners
    if kind == "point":
        radius = 4 * width
        canvas.circle((left, top), radius, fill=WHITE, outline="black", width=width)
        return [left - radius, top - radius, right + radius, bottom + radius]
    canvas.rectangle(corners, outline="black", width=3 * width)
    if min(right - left, bottom - top) > 2 * width:
        canvas.rectangle((left + width, top + width, right - width, bottom - width), outline=WHITE, width=width)
    return corners


def _write(
    text: str, box: list[float], image: Image.Image, font: ImageFont.FreeTypeFont, colour: tuple[int, int, int]
) -> None:
    """Write the text above the box, or at its upper edge where the picture ends."""
    canvas = ImageDraw.Draw(image)
    _, _, width, height = canvas.textbbox((1, 1), text, font)
    left = max(0, min(box[0], image.width - width - 1))
    top = box[1] - height if box[1] >= height else box[1]
    canvas.rectangle((left, top, left + width, top + height), fill=colour)
    canvas.text((left + 1, top + 1), text, "black", font)


def label_colour(label: str) -> tuple[int, int, int]:
    """Bright enough for black text; the same for the same label everywhere."""
    code = crc32(label.encode(errors="replace"))
    red, green, blue = hsv_to_rgb((code % 360 / 360, 0.25 + 0.3 * (code // 360 % 2), 1.0))
    return round(red * 255), round(green * 255), round(blue * 255)
