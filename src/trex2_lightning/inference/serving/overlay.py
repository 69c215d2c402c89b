"""Detections and marks as SVG over a picture; everything typed is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from trex2_lightning.inference.marks import Marks
from trex2_lightning.inference.pictures import label_colour
from trex2_lightning.structures import Detection, Exemplar


def overlay(found: Iterable[Detection], marks: Marks, size: tuple[int, int], scale: float) -> str:
    """The content of an SVG as large as the picture is shown.

    Args:
        found: boxes in pixels of the file, best first; the best is drawn on top.
        marks: in pixels of the file, on top of all.
        size: height and width of the file in pixels.
        scale: pixels of what is shown for one of the file.
    """
    width = size[1] * scale
    unit = width / 400  # as wide as a thin line
    parts = []
    for name, score, corners in reversed(list(found)):
        colour = "#{:02x}{:02x}{:02x}".format(*label_colour(name))
        parts.append(_rectangle(corners, scale, f'stroke="{colour}" stroke-width="{1.5 * unit:.2f}"'))
        parts.append(_label(f"{name} {score:.2f}", corners, scale, width, colour))
    for name, exemplars in marks.items():
        for exemplar in exemplars:
            parts.append(_mark(exemplar, scale, unit))
            parts.append(_label(f"prompt: {name}", exemplar.corners, scale, width, "#ffffff"))
    return "".join(parts)


def _mark(exemplar: Exemplar, scale: float, unit: float) -> str:
    """White with a black edge."""
    if not exemplar.has_area:
        x, y, _, _ = (side * scale for side in exemplar.corners)
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="{4 * unit:.2f}"'
        return f'<circle {place} fill="white" stroke="black" stroke-width="{unit:.2f}"/>'
    strokes = (f'stroke="black" stroke-width="{3 * unit:.2f}"', f'stroke="white" stroke-width="{unit:.2f}"')
    return "".join(_rectangle(exemplar.corners, scale, stroke) for stroke in strokes)


def _rectangle(corners: tuple[float, float, float, float], scale: float, stroke: str) -> str:
    left, top, right, bottom = (side * scale for side in corners)
    place = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
    return f'<rect {place} fill="none" {stroke}/>'


def _label(text: str, corners: tuple[float, float, float, float], scale: float, width: float, colour: str) -> str:
    """Above the box, or at its upper edge where the picture ends; `width` is the picture's."""
    unit = width / 400
    height, length = 14 * unit, (6.7 * len(text) + 4) * unit
    left, top = max(0.0, min(corners[0] * scale, width - length)), corners[1] * scale
    top = top - height if top >= height else top
    back = f'x="{left:.1f}" y="{top:.1f}" width="{length:.1f}" height="{height:.1f}"'
    place = f'x="{left + 2 * unit:.1f}" y="{top + 11 * unit:.1f}" font-size="{11 * unit:.1f}"'
    return f'<rect {back} fill="{colour}"/><text {place} font-family="monospace" fill="black">{escape(text)}</text>'
