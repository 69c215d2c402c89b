"""Pictures that exported detectors look at."""

from __future__ import annotations

from PIL import Image, ImageDraw


def picture(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), (120,) * 3)
    draw = ImageDraw.Draw(image)
    draw.rectangle((5, 6, 30, 40), fill=(200, 30, 30))
    draw.rectangle((20, 10, 45, 30), fill=(30, 180, 30))
    return image


PICTURES = [picture(*size) for size in ((90, 70), (200, 150), (64, 96))]
