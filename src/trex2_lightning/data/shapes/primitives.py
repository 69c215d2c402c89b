"""What outlines are made of: polygons, rectangles, arcs; any unit, x to the right and y downwards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2) corners x, y of a polygon


class Outline(NamedTuple):
    """The union of the `solid` polygons less the `holes`, which lie inside it."""

    solid: tuple[Points, ...]
    holes: tuple[Points, ...] = ()

    def box(self) -> Points:
        """(2, 2) upper left and lower right corner of the tight box."""
        points = np.concatenate(self.solid)
        return np.stack([points.min(0), points.max(0)])

    def transform(self, matrix: Points, offset: Points) -> Outline:
        """Multiply every point by `matrix` (2, 2), then add `offset` (2,)."""

        def moved(polygons: tuple[Points, ...]) -> tuple[Points, ...]:
            return tuple(points @ matrix.T + offset for points in polygons)

        return Outline(moved(self.solid), moved(self.holes))


def polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, float)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def arc(start: float, stop: float, radius: float = 1, x: float = 0, y: float = 0, flat: float = 1) -> Points:
    """Points from angle `start` to `stop` in degrees, clockwise from the right; the height is `flat` x the width."""
    angles = np.radians(np.linspace(start, stop, 3 + int(abs(stop - start) / 10)))
    return np.stack([x + radius * np.cos(angles), y + flat * radius * np.sin(angles)], -1)


def disc(radius: float = 1, x: float = 0, y: float = 0, flat: float = 1) -> Points:
    return arc(0, 360, radius, x, y, flat)


def ring_part(start: float, stop: float, outer: float, inner: float, x: float = 0, y: float = 0) -> Points:
    """The band between two radii, from angle `start` to `stop` as in `arc`."""
    return np.concatenate([arc(start, stop, outer, x, y), arc(stop, start, inner, x, y)])


def star(tips: int, inner: float) -> Points:
    angles = np.arange(2 * tips) * np.pi / tips - np.pi / 2
    radii = np.where(np.arange(2 * tips) % 2, inner, 1)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], -1)
