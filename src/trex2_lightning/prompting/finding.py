"""From an image's features and prompts to scored boxes: the one way of evaluation and of prediction.

B images, Q queries, N of them that are kept, C categories, F kinds of evidence.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from trex2_lightning.models.calibration import SOURCES
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.boxes import cxcywh_to_xyxy
from trex2_lightning.ops.scores import category_scores
from trex2_lightning.structures import FeatureMaps, PromptSource, PromptTokens

COMPARED = 100  # boxes of an image that appearance is asked about
SAME = 0.7  # IoU from which two boxes are taken for one
SMALLEST = 1e-6  # score and its distance from 1 in a logit


class Evidence(NamedTuple):
    """What speaks for each box and category, before it is weighed."""

    values: Tensor  # (B, N, C, F), as `models.calibration.EVIDENCE`; -inf where there is none
    boxes: Tensor  # (B, N, 4)


class Found(NamedTuple):
    """Boxes with a score for each category."""

    scores: Tensor  # (B, N, C) in [0, 1], 0 of what is not asked for
    boxes: Tensor  # (B, N, 4)


def find(
    detector: PromptedDetector,
    features: FeatureMaps,
    prompts: PromptTokens,
    source: PromptSource | Tensor,
    proposing: PromptTokens | None = None,
) -> Found:
    """Find what the prompts ask for.

    Args:
        detector, features, prompts, proposing: as of `gather_evidence`.
        source: what the prompts were made from, or (C,) index into `models.calibration.SOURCES` of each category.
    """
    evidence = gather_evidence(detector, features, prompts, proposing)
    if not isinstance(source, Tensor):
        source = torch.full(evidence.values.shape[2:3], SOURCES.index(source), device=evidence.boxes.device)
    return Found(detector.calibration(evidence.values, source), evidence.boxes)


def gather_evidence(
    detector: PromptedDetector,
    features: FeatureMaps,
    prompts: PromptTokens,
    proposing: PromptTokens | None = None,
) -> Evidence:
    """Find boxes by what the prompts ask for, and what speaks for each of them.

    Where exemplars have an appearance, only the `COMPARED` best boxes are kept, and none that is nearly the same as a
    better one.

    Args:
        detector: in evaluation mode.
        features: of B images.
        prompts: of C categories, of batch size 1 or B.
        proposing: prompts of what the detector knows, by which boxes are found where `prompts` are exemplars; None: by
            these, as the visual prompt encoder is trained.
    """
    shown, seen = prompts.appearance, features.appearance
    compares = shown is not None and seen is not None and detector.appearance is not None
    instead = proposing is not None and compares
    output = detector.decode(features, proposing if instead else prompts)
    scores, boxes = detector.scores(output), output.queries.boxes[-1].float()  # (B, Q, C), (B, Q, 4)
    best = scores.amax(-1)
    if instead:
        scores = best[..., None] * _asked(prompts)
    if compares:
        kept, real = _kept(boxes, best)
        best, boxes, scores = _rows(best, kept), _rows(boxes, kept), _rows(scores, kept) * real[..., None]
        vectors = detector.appearance.vectors(seen, boxes)
        similarity = detector.appearance.similarity(vectors, shown, scores.shape[-1])
        share = (similarity / detector.appearance.temperature).log_softmax(-1)
    else:
        similarity = share = torch.full_like(scores, -torch.inf)
    best_score = best[..., None].expand_as(scores).logit(SMALLEST)
    score = scores.logit(SMALLEST).masked_fill(scores == 0, -torch.inf)
    return Evidence(torch.stack([score, best_score, similarity, share], -1), boxes)


def _asked(prompts: PromptTokens) -> Tensor:
    """(B or 1, 1, C), 1 of a category that an image is asked for, else 0."""
    certain = torch.full_like(prompts.embed[..., 0], torch.inf)  # (B or 1, T)
    return category_scores(certain[:, None], prompts.category, prompts.valid)


def _kept(boxes: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) indices of boxes, best first, and where they are real: an image may have fewer than another."""
    images = torch.arange(len(boxes), device=boxes.device)[:, None].expand(boxes.shape[:2])
    order = batched_nms(cxcywh_to_xyxy(boxes).flatten(0, 1), best.flatten(), images.flatten(), SAME)
    rows = [order[order // boxes.shape[1] == image][:COMPARED] % boxes.shape[1] for image in range(len(boxes))]
    kept = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    counts = torch.tensor([len(row) for row in rows], device=boxes.device)
    return kept, torch.arange(kept.shape[1], device=boxes.device) < counts[:, None]


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, N) of x (B, Q, ...): (B, N, ...)."""
    return x[torch.arange(len(x), device=x.device)[:, None], index]
