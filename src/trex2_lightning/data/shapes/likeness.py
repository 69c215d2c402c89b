"""How alike two outlines are: IoU of their masks, centred, scaled to equal area, the best over rotations and mirror.

Masks are sampled on rings around their centre, where a rotation is a shift: the overlaps of all rotations at once are a
correlation along the rings, a product of Fourier transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.data.shapes.drawing import filled, pose
from trex2_lightning.data.shapes.primitives import Outline

RASTER = 160  # pixels of the long side of the mask that is sampled
NUM_ANGLES = 72  # rotations in steps of 5 degrees
NUM_RINGS = 64
REACH = 4.0  # of the outermost ring; 1 is the radius of a disc of the mask's area


class Gallery(NamedTuple):
    """R outlines to compare others with, each twice: as it is and mirrored."""

    spectra: NDArray[np.complex64]  # (frequencies, 2R, rings)
    areas: NDArray[np.float32]  # (2R,)

    @classmethod
    def of(cls, outlines: Sequence[Outline]) -> Gallery:
        masks = np.stack([polar_mask(outline) for outline in outlines])
        both = np.concatenate([masks, masks[..., ::-1]])
        return cls(_spectra(both), both.sum((1, 2)))

    def likeness(self, outline: Outline) -> float:
        """The highest likeness to one of the outlines: 1 for a copy that is shifted, scaled, turned and mirrored."""
        mask = polar_mask(outline)[None]
        products = (self.spectra @ _spectra(mask).conj().swapaxes(1, 2))[..., 0]  # (frequencies, 2R)
        # The masks hold roots of weights once each: transformed back, their products are areas.
        overlap = np.fft.irfft(products, NUM_ANGLES, axis=0).max(0)
        return float((overlap / (self.areas + mask.sum() - overlap)).max())


def polar_mask(outline: Outline) -> NDArray[np.float32]:
    """(rings, angles) what of a ring's area lies within the outline; both in the same unit whatever the outline's."""
    placed = pose(outline, RASTER, 1, 0)
    width, height = np.ceil(placed.box()[1] + 1).astype(int).tolist()
    mask = np.asarray(filled(placed, (width, height))) > 0
    centre = np.argwhere(mask).mean(0)
    radii = _radii() * np.sqrt(mask.sum() / np.pi)
    angles = np.arange(NUM_ANGLES) * 2 * np.pi / NUM_ANGLES
    rows = (centre[0] + radii[:, None] * np.sin(angles)).round().astype(int)
    columns = (centre[1] + radii[:, None] * np.cos(angles)).round().astype(int)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    hit = inside & mask[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return (hit * _radii()[:, None]).astype(np.float32)


def _spectra(masks: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Fourier transforms along the rings of masks (N, rings, angles): (frequencies, N, rings).

    A mask's values are the areas of its cells; divided by their roots, the product of two of them is that area again.
    """
    rooted = masks / np.sqrt(_radii()[:, None])
    return np.ascontiguousarray(np.fft.rfft(rooted, axis=-1).transpose(2, 0, 1), np.complex64)


def _radii() -> NDArray[np.float64]:
    return (np.arange(NUM_RINGS) + 0.5) * REACH / NUM_RINGS
