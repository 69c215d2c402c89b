"""The shapes of the synthetic data set `shapes` that have a word, drawn upright."""

from __future__ import annotations

import numpy as np

from trex2_lightning.data.shapes.primitives import Outline, Points, arc, disc, polygon, rectangle, ring_part, star


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 40)
    height = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -height], -1)


def _flower() -> Points:
    t = np.linspace(0, 2 * np.pi, 80)
    radii = 0.68 + 0.32 * np.cos(5 * t)
    return np.stack([radii * np.sin(t), -radii * np.cos(t)], -1)


def _snake() -> Points:
    x = np.linspace(-1, 1, 24)
    y = 0.4 * np.sin(1.5 * np.pi * x)
    return np.concatenate([np.stack([x, y - 0.25], -1), np.stack([x, y + 0.25], -1)[::-1]])


OUTLINES = {
    "circle": Outline((disc(),)),
    "square": Outline((rectangle(-1, -1, 1, 1),)),
    "triangle": Outline((polygon((0, -1), (1, 0.8), (-1, 0.8)),)),
    "star": Outline((star(5, 0.42),)),
    "cross": Outline((rectangle(-1, -0.33, 1, 0.33), rectangle(-0.33, -1, 0.33, 1))),
    "heart": Outline((_heart(),)),
    "ring": Outline((disc(),), (disc(0.52),)),
    "moon": Outline((np.concatenate([arc(52, 308), arc(278, 82, 0.8, 0.5)]),)),
    "flower": Outline((_flower(),), (disc(0.2),)),
    "drop": Outline((np.concatenate([polygon((0, -1)), arc(-25, 205, 0.65, 0, 0.35)]),)),
    "horseshoe": Outline((np.concatenate([arc(130, 410), arc(410, 130, 0.52)]),)),
    "house": Outline(
        (polygon((-1, 0), (0, -1), (1, 0)), rectangle(-0.7, -0.05, 0.7, 1), rectangle(0.45, -1, 0.75, -0.2)),
        (rectangle(-0.22, 0.3, 0.22, 1),),
    ),
    "arrow": Outline((polygon((-1, -0.28), (0.1, -0.28), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.28), (-1, 0.28)),)),
    "crown": Outline((polygon((-1, 0.7), (-1, -0.6), (-0.5, 0.1), (0, -0.8), (0.5, 0.1), (1, -0.6), (1, 0.7)),)),
    "hourglass": Outline((polygon((-0.8, -1), (0.8, -1), (0.12, 0), (0.8, 1), (-0.8, 1), (-0.12, 0)),)),
    "mushroom": Outline((arc(180, 360), rectangle(-0.3, -0.05, 0.3, 0.9))),
    "flag": Outline(
        (rectangle(-0.9, -1, -0.6, 1), polygon((-0.6, -1), (0.9, -1), (0.4, -0.45), (0.9, 0.1), (-0.6, 0.1)))
    ),
    "stairs": Outline(
        (rectangle(-1, 0.4, 1, 1), rectangle(-0.33, -0.3, 1, 0.5), rectangle(0.33, -1, 1, 0.5)),
    ),
    "boat": Outline(
        (
            polygon((-1, 0.3), (1, 0.3), (0.6, 0.9), (-0.6, 0.9)),
            rectangle(-0.2, -1, 0, 0.4),
            polygon((-0.05, -0.95), (0.8, 0.1), (-0.05, 0.1)),
        )
    ),
    "cup": Outline(
        (polygon((-1, -0.8), (0.4, -0.8), (0.25, 0.8), (-0.85, 0.8)), disc(0.5, 0.5, -0.1)), (disc(0.24, 0.6, -0.1),)
    ),
    "bolt": Outline(
        (polygon((0.05, -1), (-0.6, 0.15), (-0.1, 0.15), (-0.3, 1), (0.6, -0.25), (0.1, -0.25), (0.5, -1)),)
    ),
    "fish": Outline((disc(0.75, -0.25, 0, 0.62), polygon((0.2, 0), (1, -0.6), (0.8, 0), (1, 0.6)))),
    "key": Outline(
        (
            disc(0.5, -0.5),
            rectangle(-0.1, -0.14, 1, 0.14),
            rectangle(0.35, 0, 0.55, 0.5),
            rectangle(0.8, 0, 1, 0.5),
        ),
        (disc(0.24, -0.5),),
    ),
    "bone": Outline(
        (rectangle(-0.65, -0.17, 0.65, 0.17), *(disc(0.3, x, y) for x in (-0.7, 0.7) for y in (-0.26, 0.26)))
    ),
    "comb": Outline(
        (rectangle(-1, -0.75, 1, -0.2), *(rectangle(x, -0.3, x + 0.29, 0.75) for x in (-1, -0.43, 0.14, 0.71)))
    ),
    "snake": Outline((_snake(),)),
    "bottle": Outline(
        (polygon((-0.2, -1), (0.2, -1), (0.2, -0.45), (0.5, -0.1), (0.5, 1), (-0.5, 1), (-0.5, -0.1), (-0.2, -0.45)),)
    ),
    "ladder": Outline(
        (rectangle(-0.6, -1, 0.6, 1),), tuple(rectangle(-0.35, y, 0.35, y + 0.33) for y in (-0.87, -0.4, 0.07, 0.54))
    ),
    "tree": Outline(
        (
            polygon((0, -1), (0.42, -0.4), (-0.42, -0.4)),
            polygon((0, -0.6), (0.6, 0.15), (-0.6, 0.15)),
            polygon((0, -0.1), (0.75, 0.65), (-0.75, 0.65)),
            rectangle(-0.14, 0.6, 0.14, 1),
        ),
    ),
    "scissors": Outline(
        (
            disc(0.32, -0.5, 0.68),
            disc(0.32, 0.5, 0.68),
            polygon((-0.42, 0.45), (-0.22, 0.5), (0.55, -1), (0.2, -0.85)),
            polygon((0.42, 0.45), (0.22, 0.5), (-0.55, -1), (-0.2, -0.85)),
        ),
        (disc(0.16, -0.5, 0.68), disc(0.16, 0.5, 0.68)),
    ),
    "hammer": Outline(
        (
            polygon(
                (-0.2, -0.95), (0.8, -0.95), (0.8, -0.4), (-0.2, -0.4), (-0.75, -0.2), (-0.95, -0.4), (-0.75, -0.7)
            ),
            rectangle(-0.12, -0.5, 0.2, 1),
        )
    ),
    "anchor": Outline(
        (
            disc(0.24, 0, -0.76),
            rectangle(-0.12, -0.6, 0.12, 0.8),
            rectangle(-0.5, -0.42, 0.5, -0.2),
            ring_part(0, 180, 0.85, 0.6, 0, 0.15),
            polygon((-1, 0.3), (-0.72, -0.15), (-0.45, 0.3)),
            polygon((1, 0.3), (0.72, -0.15), (0.45, 0.3)),
        ),
        (disc(0.11, 0, -0.76),),
    ),
    "bell": Outline(
        (
            disc(0.14, 0, -0.86),
            np.concatenate([arc(180, 360, 0.45, 0, -0.35), polygon((0.5, 0.2), (0.9, 0.6), (-0.9, 0.6), (-0.5, 0.2))]),
            disc(0.2, 0, 0.7),
        )
    ),
    "lamp": Outline(
        (
            polygon((-0.3, -1), (0.3, -1), (0.7, -0.25), (-0.7, -0.25)),
            rectangle(-0.1, -0.3, 0.1, 0.9),
            polygon((-0.5, 1), (-0.4, 0.8), (0.4, 0.8), (0.5, 1)),
        )
    ),
    "cactus": Outline(
        (
            rectangle(-0.22, -0.85, 0.22, 1),
            disc(0.22, 0, -0.8),
            rectangle(-0.8, 0, -0.1, 0.3),
            rectangle(-0.8, -0.5, -0.48, 0.3),
            rectangle(0.1, 0.35, 0.8, 0.65),
            rectangle(0.48, -0.2, 0.8, 0.65),
        )
    ),
    "chair": Outline(
        (
            rectangle(-0.6, -1, -0.34, 1),
            rectangle(-0.6, -0.05, 0.6, 0.22),
            rectangle(0.34, 0, 0.6, 1),
        )
    ),
    "plane": Outline(
        (
            polygon((0, -1), (0.14, -0.7), (0.14, 0.85), (-0.14, 0.85), (-0.14, -0.7)),
            polygon((0, -0.45), (1, 0.3), (1, 0.5), (0, 0.15), (-1, 0.5), (-1, 0.3)),
            polygon((0, 0.55), (0.42, 0.85), (0.42, 1), (-0.42, 1), (-0.42, 0.85)),
        )
    ),
    "shirt": Outline(
        (
            polygon(
                *((-0.35, -0.8), (-0.12, -0.62), (0.12, -0.62), (0.35, -0.8), (1, -0.35), (0.75, 0.05), (0.48, -0.15)),
                *((0.48, 0.85), (-0.48, 0.85), (-0.48, -0.15), (-0.75, 0.05), (-1, -0.35)),
            ),
        )
    ),
    "car": Outline(
        (
            polygon(
                (-1, 0.35), (-0.95, -0.05), (-0.6, -0.1), (-0.3, -0.5), (0.4, -0.5), (0.65, -0.1), (1, 0), (1, 0.35)
            ),
            disc(0.26, -0.5, 0.36),
            disc(0.26, 0.52, 0.36),
        ),
        (polygon((-0.38, -0.1), (-0.2, -0.36), (0, -0.36), (0, -0.1)), rectangle(0.14, -0.36, 0.36, -0.1)),
    ),
    "boot": Outline(
        (
            polygon((-0.6, -1), (0.1, -1), (0.15, 0.1), (0.75, 0.3), (0.95, 0.55), (0.95, 0.8), (-0.6, 0.8)),
            rectangle(-0.6, 0.7, -0.1, 1),
        )
    ),
    "rabbit": Outline((disc(0.55, 0, 0.4), disc(0.2, -0.32, -0.4, 3), disc(0.2, 0.32, -0.4, 3))),
    "cloud": Outline(
        (
            disc(0.3, -0.7, 0.26),
            disc(0.38, -0.18, -0.1),
            disc(0.28, 0.4, 0.02),
            disc(0.24, 0.76, 0.32),
            rectangle(-0.7, 0.22, 0.76, 0.56),
        )
    ),
    "fork": Outline(
        (
            rectangle(-0.12, 0, 0.12, 1),
            rectangle(-0.5, -0.25, 0.5, 0.05),
            *(rectangle(x - 0.12, -1, x + 0.12, -0.2) for x in (-0.38, 0, 0.38)),
        )
    ),
    "glasses": Outline(
        (disc(0.46, -0.54), disc(0.46, 0.54), rectangle(-0.2, -0.12, 0.2, 0.08)), (disc(0.28, -0.54), disc(0.28, 0.54))
    ),
    "dog": Outline(
        (
            rectangle(-0.65, -0.15, 0.45, 0.35),
            rectangle(-0.65, 0.3, -0.42, 0.9),
            rectangle(0.22, 0.3, 0.45, 0.9),
            polygon((-0.65, 0.1), (-1, -0.45), (-0.85, -0.55), (-0.5, -0.15)),
            polygon(
                (0.2, 0), (0.3, -0.8), (0.45, -0.55), (0.65, -0.6), (1, -0.4), (1, -0.15), (0.6, -0.1), (0.45, 0.1)
            ),
        )
    ),
    "butterfly": Outline(
        (
            polygon((0, -0.1), (-0.55, -0.9), (-1, -0.75), (-0.85, 0)),
            polygon((0, -0.1), (0.55, -0.9), (1, -0.75), (0.85, 0)),
            disc(0.36, -0.42, 0.42),
            disc(0.36, 0.42, 0.42),
            rectangle(-0.1, -0.6, 0.1, 0.8),
        )
    ),
    "wrench": Outline(
        (
            ring_part(-50, 230, 0.52, 0.24, 0, -0.52),
            rectangle(-0.17, -0.2, 0.17, 0.7),
            disc(0.34, 0, 0.68),
        ),
        (disc(0.14, 0, 0.68),),
    ),
    "duck": Outline(
        (
            disc(0.7, -0.2, 0.4, 0.62),
            disc(0.32, 0.4, -0.45),
            polygon((0.66, -0.62), (1, -0.38), (0.66, -0.28)),
            polygon((0.12, -0.4), (0.66, -0.3), (0.5, 0.4), (0, 0.3)),
            polygon((-0.55, 0.05), (-1, -0.2), (-0.88, 0.4)),
        )
    ),
}
