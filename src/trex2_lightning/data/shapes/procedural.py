"""Outlines that nobody has a word for, drawn by chance: eight families of them, each with parameters of its own."""

from __future__ import annotations

import numpy as np

from trex2_lightning.data.shapes.primitives import Outline, Points, disc, rectangle, ring_part

STRETCH = (0.65, 1.0)  # height to width, before the outline is turned


def procedural_outline(number: int, rng: np.random.Generator) -> Outline:
    """An outline of the family that `number` says, the families by turns, in a random stretch and direction."""
    outline = FAMILIES[number % len(FAMILIES)](rng)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = rng.choice([-1, 1])
    return outline.transform(turn @ np.diag([mirror, rng.uniform(*STRETCH)]), np.zeros(2))


def random_star(rng: np.random.Generator) -> Outline:
    """A polygon with 3 to 7 tips of different lengths and directions, and dents of different depths."""
    corners = 2 * int(rng.integers(3, 8))
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    radii = np.where(np.arange(corners) % 2, rng.uniform(0.3, 0.65, corners), rng.uniform(0.7, 1, corners))
    return Outline((_around(angles, radii),))


def _angular(rng: np.random.Generator) -> Outline:
    """A polygon of 5 to 10 corners, near to its middle or far from it by chance."""
    corners = int(rng.integers(5, 11))
    angles = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners
    near = rng.random(corners) < 0.5
    return Outline((_around(angles, np.where(near, rng.uniform(0.22, 0.45, corners), rng.uniform(0.7, 1, corners))),))


def _smooth(rng: np.random.Generator) -> Outline:
    """A closed curve whose distance from its middle is a sum of a few waves."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    waves = np.arange(2, 7)[:, None]
    heights = rng.uniform(0, 0.9, (5, 1)) / np.sqrt(waves) * rng.integers(0, 2, (5, 1))
    radii = 1 + (heights * np.cos(waves * angles + rng.uniform(0, 2 * np.pi, (5, 1)))).sum(0)
    return Outline((_around(angles, radii.clip(0.25)),))


def _toothed(rng: np.random.Generator) -> Outline:
    """A wheel of 4 to 11 straight or slanted teeth, half of them with a hole."""
    teeth = int(rng.integers(4, 12))
    root, slant = rng.uniform(0.4, 0.8), rng.uniform(-0.35, 0.35)
    foot, tip = rng.uniform(0.2, 0.45), rng.uniform(0.03, 0.3)
    angles = np.arange(teeth)[:, None] + np.array([-foot, slant - tip, slant + tip, foot])
    wheel = _around(angles.ravel() * 2 * np.pi / teeth, np.tile([root, 1, 1, root], teeth))
    hole = disc(root * rng.uniform(0.3, 0.75))
    return Outline((wheel,), (hole,) if rng.random() < 0.5 else ())


def _armed(rng: np.random.Generator) -> Outline:
    """3 to 6 arms from a hub, of different lengths, widening or narrowing, some of them with a knob."""
    count = int(rng.integers(3, 7))
    parts = [disc(rng.uniform(0.15, 0.35))]
    for angle in (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count:
        length, near, far = rng.uniform(0.45, 1), rng.uniform(0.1, 0.25), rng.uniform(0.06, 0.3)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        parts.append(np.array([(0, -near), (length, -far), (length, far), (0, near)]) @ turn.T)
        if rng.random() < 0.4:
            parts.append(disc(rng.uniform(0.16, 0.32), *(turn @ (length, 0)).tolist()))
    return Outline(tuple(parts))


def _coiled(rng: np.random.Generator) -> Outline:
    """A band that winds outwards and changes its width."""
    turns, start = rng.uniform(0.6, 2), rng.uniform(0.1, 0.4)
    widest = min(0.35, 0.8 * (1 - start) / turns)  # else it would touch itself
    angles = np.linspace(0, 2 * np.pi * turns, 60)
    radii = np.linspace(start, 1, 60)
    inner, outer = rng.uniform(0.2 * widest, 0.5 * widest, 2).tolist()
    half = np.linspace(inner, outer, 60)
    return Outline((np.concatenate([_around(angles, radii + half), _around(angles, radii - half)[::-1]]),))


def _blocky(rng: np.random.Generator) -> Outline:
    """5 to 9 neighbouring fields of a grid with unequal rows and columns."""
    columns, rows = np.cumsum(rng.uniform(0.5, 1.5, (2, 5)), 1)
    cells = {(1, 1)}
    wanted = int(rng.integers(5, 10))
    while len(cells) < wanted:
        x, y = sorted(cells)[rng.integers(len(cells))]
        dx, dy = ((1, 0), (-1, 0), (0, 1), (0, -1))[rng.integers(4)]
        if 0 <= x + dx < 4 and 0 <= y + dy < 4:
            cells.add((x + dx, y + dy))
    return Outline(tuple(rectangle(columns[x], rows[y], columns[x + 1], rows[y + 1]) for x, y in sorted(cells)))


def _bent(rng: np.random.Generator) -> Outline:
    """A thick line of 3 to 6 pieces, straight and round by chance."""
    half = rng.uniform(0.12, 0.25)
    place, direction = np.zeros(2), 0.0
    parts = [disc(half)]
    for _ in range(rng.integers(3, 7)):
        along = np.array([np.cos(direction), np.sin(direction)])
        across = np.array([-along[1], along[0]])
        if rng.random() < 0.6:
            stop = place + rng.uniform(0.5, 1.1) * along
            parts.append(
                np.array([place - half * across, stop - half * across, stop + half * across, place + half * across])
            )
            direction += rng.uniform(-2.2, 2.2)
        else:
            radius, angle, side = rng.uniform(half + 0.1, 0.8), rng.uniform(60, 200), rng.choice([-1, 1])
            middle = place + side * radius * across
            start = np.degrees(direction) - side * 90
            parts.append(ring_part(start, start + side * angle, radius + half, radius - half, *middle.tolist()))
            direction += side * np.radians(angle)
            stop = middle + radius * side * np.array([np.sin(direction), -np.cos(direction)])
        place = stop
        parts.append(disc(half, *place.tolist()))
    return Outline(tuple(parts))


def _joined(rng: np.random.Generator) -> Outline:
    """3 to 6 ellipses, boxes and triangles, each grown from the rim of one before; half of them with a hole."""
    first = rng.uniform(0.45, 0.75)
    places, reaches, parts = [np.zeros(2)], [first], [disc(first)]  # `reaches`: how far a part goes in any direction
    for _ in range(rng.integers(2, 6)):
        other, angle, size = rng.integers(len(places)), rng.uniform(0, 2 * np.pi), rng.uniform(0.22, 0.6)
        places.append(places[other] + (reaches[other] + 0.5 * size) * np.array([np.cos(angle), np.sin(angle)]))
        reaches.append(0.3 * size)
        corners = int(rng.choice([3, 4, 36]))
        around = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        part = _around(around, np.full(corners, 1.2 * size if corners < 5 else size)) * (1, rng.uniform(0.5, 1))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        parts.append(part @ turn.T + places[-1])
    hole = disc(first * rng.uniform(0.35, 0.7))
    return Outline(tuple(parts), (hole,) if rng.random() < 0.5 else ())


def _around(angles: Points, radii: Points) -> Points:
    """Points at these angles and distances from the middle."""
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], -1)


FAMILIES = (_angular, _smooth, _toothed, _armed, _coiled, _blocky, _bent, _joined)
