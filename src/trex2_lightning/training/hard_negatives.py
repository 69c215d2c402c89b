"""Which phrases are hard to tell apart: those that the text encoder takes for alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.prompt_tokens import category_vectors

NEAREST = 10  # phrases that are kept of each
AT_ONCE = 512  # phrases that are encoded and compared


@torch.no_grad()
def nearest_phrases(detector: PromptedDetector, phrases: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The `NEAREST` other phrases of each by the cosine of their vectors, the nearest first.

    Args:
        detector: whose text encoder compares them, as it is now.
        phrases: n, all different.
    """
    training = detector.training
    detector.eval()
    parts = [tuple(phrases[start : start + AT_ONCE]) for start in range(0, len(phrases), AT_ONCE)]
    encoded = [category_vectors(detector.text_encoder(part), len(part))[0] for part in parts]
    detector.train(training)
    nearest: dict[str, tuple[str, ...]] = {}
    if not encoded:
        return nearest
    vectors = normalize(torch.cat(encoded), dim=-1)
    for part, own in zip(parts, vectors.split(AT_ONCE), strict=True):
        best = (own @ vectors.T).topk(min(NEAREST + 1, len(phrases))).indices.tolist()
        for phrase, places in zip(part, best, strict=True):
            nearest[phrase] = tuple(phrases[place] for place in places if phrases[place] != phrase)[:NEAREST]
    return nearest
