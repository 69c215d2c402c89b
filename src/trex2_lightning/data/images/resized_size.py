"""How large a picture is where a detector sees it; without PyTorch, as exported detectors need it too."""

from __future__ import annotations


def resized_size(height: int, width: int, size: int, longest: int) -> tuple[int, int]:
    """Height and width of a picture whose shorter side becomes `size`, or less where the longer one would exceed
    `longest`; no side is below 1.

    To the pixel what `transformers` has for Grounding DINO, but for pictures that it leaves as they are although their
    longer side is a little too long. In torchvision's `RandomShortestSize` a rounding error costs the shorter side a
    pixel: 385 x 640 becomes 799 x 1329.
    """
    shorter, longer = min(height, width), max(height, width)
    wanted = min(float(size), longest * shorter / longer)
    sides = max(round(wanted), 1), max(int(wanted * longer / shorter), 1)
    return sides if height <= width else (sides[1], sides[0])
