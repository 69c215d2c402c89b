"""Detections to those of the library `supervision`, for its annotators, trackers and zones, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trex2_lightning.errors import InputError
from trex2_lightning.structures import Detection

if TYPE_CHECKING:
    from supervision import Detections

CLASS_NAME = "class_name"  # where supervision keeps them


def to_supervision(found: Sequence[Detection], names: Sequence[str] = ()) -> Detections:
    """What was found in an image, in its order.

    Args:
        found: as `Predictor.detect` gives it.
        names: of all categories, such as `PromptSet.names`: a category's place there is its `class_id`, the same in
            every image; what is not among them is numbered behind them as it comes.

    Raises:
        InputError: supervision is not installed.
    """
    try:
        from supervision import Detections
    except ImportError:
        raise InputError("supervision is not installed: pip install 'trex2_lightning[supervision]'") from None
    numbers = {name: number for number, name in enumerate(dict.fromkeys([*names, *(one.name for one in found)]))}
    return Detections(
        xyxy=np.array([one.box for one in found], np.float32).reshape(-1, 4),
        confidence=np.array([one.score for one in found], np.float32),
        class_id=np.array([numbers[one.name] for one in found], np.int64),
        data={CLASS_NAME: np.array([one.name for one in found], str)},
    )


def from_supervision(detections: Detections) -> list[Detection]:
    """The same as this package has it; what they have besides (masks, trackers) is left out.

    Raises:
        InputError: they have no names or no scores.
    """
    names, scores = detections.data.get(CLASS_NAME), detections.confidence
    if len(detections) and (names is None or scores is None):
        lacks = f"data['{CLASS_NAME}']" if names is None else "confidence"
        raise InputError(f"detections without {lacks} say too little: give those that have both")
    rows = zip([] if names is None else names, [] if scores is None else scores, detections.xyxy.tolist(), strict=True)
    return [Detection(str(name), float(score), (box[0], box[1], box[2], box[3])) for name, score, box in rows]
