"""Image features of some images of a batch."""

from __future__ import annotations

from trex2_lightning.structures import AppearanceMaps, FeatureMaps


def of_image(features: FeatureMaps, image: int) -> FeatureMaps:
    """The features of one image of a batch, of batch size 1."""
    own, seen = slice(image, image + 1), features.appearance
    return FeatureMaps(
        tokens=features.tokens[own],
        pos=features.pos[own],
        valid=features.valid[own],
        shapes=features.shapes,
        levels=features.levels,
        valid_ratios=features.valid_ratios[own],
        neck=features.neck[own],
        appearance=seen and AppearanceMaps(tuple(each[own] for each in seen.maps), seen.extent[own]),
    )
