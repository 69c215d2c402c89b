"""From what the decoding graph gives of an image to scored boxes, in NumPy: `prompting.finding` of one image.

Q queries, N of them that are kept, T prompt tokens, C categories, F kinds of evidence, A channels of appearance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.inference.exported import ExportedAppearance, ExportedDetector

Floats = NDArray[np.floating[Any]]  # float32
SIMILARITY, EVIDENCE = 5, 8  # place and number of the kinds of evidence (`models.calibration`)
MOST_BOXES, DUPLICATE_IOU = 100, 0.8  # as `prompting.finding`
SMALLEST, LARGEST = np.float32(1e-12), np.float32(1 - 2**-24)


class Decoded(NamedTuple):
    """What the decoder found in an image."""

    logits: Floats  # (Q, T)
    boxes: Floats  # (Q, 4)
    presence: Floats | None  # (T,)


def mean_sigmoids(logits: Floats, category: NDArray[np.int64], count: int) -> Floats:
    """The mean of each category's sigmoids: (..., T) -> (..., C)."""
    share = (category == np.arange(count)[:, None]).astype(np.float32)
    share /= share.sum(1, keepdims=True).clip(min=1)
    return _sigmoid(logits) @ share.T


def scores(found: Decoded, category: NDArray[np.int64], count: int) -> Floats:
    """(Q, C), each times its category's presence; as `PromptedDetector.scores`."""
    likely = mean_sigmoids(found.logits, category, count)
    return likely if found.presence is None else likely * mean_sigmoids(found.presence, category, count)


def weighed(evidence: Floats, sources: NDArray[np.int64], settings: ExportedDetector) -> Floats:
    """Evidence (N, C, F) to scores (N, C); as `models.calibration.ScoreCalibration`."""
    compared = (evidence[..., SIMILARITY] > -np.inf).astype(np.int64)
    weight = np.array(settings.calibration_weight, np.float32)[compared, sources]
    bias = np.array(settings.calibration_bias, np.float32)[compared, sources]
    with np.errstate(invalid="ignore"):
        terms = np.where(weight == 0, np.float32(0), evidence * weight)  # 0 * -inf is no number
    return np.where(evidence[..., 0] == -np.inf, np.float32(0), _sigmoid(terms.sum(-1) + bias))


def near_better(boxes: Floats, best: Floats) -> tuple[Floats, Floats]:
    """IoU of a box with the nearest that has a better score, and the most of its area that lies in one: (N,) each."""
    shared, area = _shared(boxes), boxes[:, 2:].prod(-1)
    better = best[None] > best[:, None]
    iou = shared / (area[:, None] + area - shared).clip(min=1e-12)
    within = shared / area[:, None].clip(min=1e-12)
    return (iou * better).max(-1), (within * better).max(-1)


def learned_evidence(likely: Floats, best: Floats, any_score: Floats, boxes: Floats) -> Floats:
    """(N, C, F) of scores (N, C), of each box's best score and of that it is anything known; without appearance."""
    overlap, inside = near_better(boxes, best)
    evidence = np.full((*likely.shape, EVIDENCE), -np.inf, np.float32)
    evidence[..., 0] = np.where(likely == 0, -np.inf, _logit(likely))
    for place, kind in enumerate((overlap, inside, _logit(best), _logit(any_score)), 1):
        evidence[..., place] = kind[:, None]
    return evidence


def apart(boxes: Floats, best: Floats, most: int) -> NDArray[np.int64]:
    """Places of the best boxes, best first, none of them nearly the same as a better one."""
    shared, area = _shared(boxes), boxes[:, 2:].prod(-1)
    iou = shared / (area[:, None] + area - shared).clip(min=1e-12)
    kept: list[int] = []
    for place in np.argsort(-best, kind="stable"):
        if not (iou[place, kept] > DUPLICATE_IOU).any():
            kept.append(int(place))
    return np.array(kept[:most])


def box_vectors(maps: Sequence[Floats], extent: Floats, boxes: Floats) -> Floats:
    """What a frozen network sees in boxes (N, 4), (N, A); as `models.appearance.Appearance.vectors`.

    Args:
        maps: (channels, h, w) each.
        extent: (2,) share of width and height that is not padding.
    """
    sides = corners(boxes).clip(0, 1) * np.tile(extent, 2)
    pooled = []
    for features in maps:
        rows = _sampled(sides[:, 1], sides[:, 3], features.shape[1])  # (N, h)
        columns = _sampled(sides[:, 0], sides[:, 2], features.shape[2])  # (N, w)
        pooled.append(_unit(np.einsum("nh,chw,nw->nc", rows, features, columns, optimize=True)))
    return np.concatenate(pooled, -1) / np.float32(len(pooled) ** 0.5)


def similarity(vectors: Floats, shown: Mapping[int, Floats], count: int, how: ExportedAppearance) -> Floats:
    """How much boxes (N, A) look like the exemplars (m, A) of each of C categories, (N, C); -inf without exemplars.

    As `models.appearance.Appearance.similarity`.
    """
    mean, transform = np.array(how.mean, np.float32), np.array(how.transform, np.float32)
    temperature = np.float32(how.temperature)
    alike = np.full((len(vectors), count), -np.inf, np.float32)
    seen = _unit((vectors - mean) @ transform)
    for category, exemplars in shown.items():
        cosine = seen @ _unit((exemplars - mean) @ transform).T / temperature
        top = cosine.max(1, keepdims=True)
        alike[:, category] = (top[:, 0] + np.log(np.exp(cosine - top).mean(1))) * temperature
    return alike


def compared_evidence(evidence: Floats, best: Floats, alike: Floats, how: ExportedAppearance) -> Floats:
    """The same evidence with what appearance says: `alike` (N, C), its share, and its share of the whole picture."""
    share = _log_softmax(alike * np.float32(how.logit_scale), 1)
    in_picture = _log_softmax((share + _logit(best)[:, None]).max(0, keepdims=True), 1)
    for place, kind in enumerate((alike, share, np.broadcast_to(in_picture, share.shape)), SIMILARITY):
        evidence[..., place] = kind
    return evidence


def _sampled(low: Floats, high: Floats, size: int) -> Floats:
    """Of which of `size` places the mean between two borders is made, (N, size): RoIAlign's 4 x 2 samples."""
    steps = (np.arange(8, dtype=np.float32) + np.float32(0.5)) / 8
    place = ((low[:, None] + steps * (high - low)[:, None]) * size - np.float32(0.5)).clip(0, size - 1)
    return (1 - np.abs(place[..., None] - np.arange(size, dtype=np.float32))).clip(min=0).mean(1)


def _unit(x: Floats) -> Floats:
    return x / np.linalg.norm(x, axis=-1, keepdims=True).clip(min=1e-12)


def _log_softmax(x: Floats, axis: int) -> Floats:
    x = x - x.max(axis, keepdims=True)
    with np.errstate(divide="ignore"):
        return x - np.log(np.exp(x).sum(axis, keepdims=True))


def _shared(boxes: Floats) -> Floats:
    sides = corners(boxes)
    low = np.maximum(sides[:, None, :2], sides[None, :, :2])
    high = np.minimum(sides[:, None, 2:], sides[None, :, 2:])
    return (high - low).clip(min=0).prod(-1)


def corners(boxes: Floats) -> Floats:
    """cxcywh (N, 4) to xyxy."""
    centre, size = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([centre - size / 2, centre + size / 2], -1)


def _sigmoid(x: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _logit(x: Floats) -> Floats:
    x = x.clip(SMALLEST, LARGEST)
    return np.log(x / (1 - x))
