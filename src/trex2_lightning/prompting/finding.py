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
from trex2_lightning.ops.prompt_tokens import renumbered, take, together
from trex2_lightning.ops.scores import category_scores
from trex2_lightning.prompting.prompt_file import asked_by_name
from trex2_lightning.structures import FeatureMaps, PromptSource, PromptTokens

MOST_BOXES = 100  # boxes of an image that appearance is asked about, unless more detections are wanted
DUPLICATE_IOU = 0.8  # IoU from which two boxes are taken for one
BY_NAME = [SOURCES.index(source) for source in asked_by_name(learned=False)]
SMALLEST, LARGEST = 1e-12, 1 - 2**-24  # scores whose logits are taken; others would be infinite


class Evidence(NamedTuple):
    """What speaks for each box and category, before it is weighed.

    `values` are, in the order of `models.calibration.EVIDENCE`:

    - the logit of the box's score for the category;
    - its IoU with a box that has a better score for anything, and the share of its area that lies within one: a
      duplicate and a part;
    - logits of its best score for anything, and of that it is any of what is known;
    - how much it looks like the exemplars, the logarithm of the category's share of that, and of the share that the
      category has of the whole picture.

    Without appearance the last three are -inf, and so is the score of a category that is not asked for.
    """

    values: Tensor  # (B, N, C, F)
    boxes: Tensor  # (B, N, 4)


class Found(NamedTuple):
    """Boxes with a score for each category."""

    scores: Tensor  # (B, N, C) in [0, 1], 0 of what is not asked for
    boxes: Tensor  # (B, N, 4)
    evidence: Tensor | None = None  # (B, N, C, F) that was weighed; None: a score is as it was learned


def find_objects(
    detector: PromptedDetector,
    features: FeatureMaps,
    prompts: PromptTokens,
    source: PromptSource | Tensor,
    proposing: PromptTokens | None = None,
    most: int = MOST_BOXES,
) -> Found:
    """Find what the prompts ask for.

    Args:
        detector, features, prompts, source, proposing, most: as of `gather_evidence`.
    """
    if not (_compared(detector, features, prompts) or detector.calibration.fitted_without_appearance):
        output = detector.decode(features, prompts)
        return Found(detector.scores(output), output.queries.boxes[-1].float())
    numbers = _numbers(source, prompts)
    evidence = gather_evidence(detector, features, prompts, numbers, proposing, most)
    return Found(detector.calibration(evidence.values, numbers), evidence.boxes, evidence.values)


def gather_evidence(
    detector: PromptedDetector,
    features: FeatureMaps,
    prompts: PromptTokens,
    source: PromptSource | Tensor,
    proposing: PromptTokens | None = None,
    most: int = MOST_BOXES,
) -> Evidence:
    """Find boxes by what the prompts ask for, and what speaks for each of them.

    Where exemplars have an appearance, only the best boxes are kept, and none that is nearly the same as a better one.

    Args:
        detector: in evaluation mode.
        features: of B images.
        prompts: of C categories, of batch size 1 or B.
        source: what they were made from, or (C,) index into `models.calibration.SOURCES` of each category.
        proposing: prompts of what the detector knows, by which boxes are found in place of exemplars; None: by these
            too, as the visual prompt encoder is trained. Else mixed prompts are those of their phrases.
        most: detections of an image that are wanted; as many boxes are kept, and `MOST_BOXES` in any case.
    """
    shown, seen, appearance = prompts.appearance, features.appearance, detector.appearance
    compared = _compared(detector, features, prompts)
    numbers, asked = _numbers(source, prompts), prompts
    num_categories, by_exemplars = len(numbers), torch.zeros_like(numbers, dtype=torch.bool)
    if proposing is not None and shown is not None and compared:
        by_exemplars[shown.category] = True
        by_exemplars &= ~torch.isin(numbers, numbers.new_tensor(BY_NAME))
        asked = _with_proposing(prompts, proposing, by_exemplars)
    output = detector.decode(features, asked)
    scores, boxes = detector.scores(output), output.queries.boxes[-1].float()  # (B, Q, C or more), (B, Q, 4)
    best, any_score = scores.amax(-1), 1 - (1 - scores).prod(-1)
    scores = scores[..., :num_categories]
    if asked is not prompts:  # what exemplars ask for has a learned score that says nothing
        scores = torch.where(by_exemplars, best[..., None] * _asked(prompts), scores)
    if compared:
        kept, real = _kept(boxes, best, max(most, MOST_BOXES))
        best, any_score, boxes, scores = (_rows(x, kept) for x in (best, any_score, boxes, scores))
        best, any_score, scores = best * real, any_score * real, scores * real[..., None]
    overlap, inside = beside_better(boxes, best)
    nothing = torch.full_like(scores, -torch.inf)
    similarity = share = in_picture = nothing
    if shown is not None and seen is not None and appearance is not None:
        similarity = appearance.similarity(appearance.vectors(seen, boxes), shown, scores.shape[-1])
        share = appearance.log_share(similarity)
        in_picture = (share + _logit(best)[..., None]).amax(1, keepdim=True).log_softmax(-1).expand_as(share)
    of_boxes = [x[..., None].expand_as(scores) for x in (overlap, inside, _logit(best), _logit(any_score))]
    score = _logit(scores).masked_fill(scores == 0, -torch.inf)
    return Evidence(torch.stack([score, *of_boxes, similarity, share, in_picture], -1), boxes)


def beside_better(boxes: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """IoU of a box with the nearest that has a better score, and the most of its area that lies in one: (B, N) each."""
    corners = cxcywh_to_xyxy(boxes)
    low = torch.maximum(corners[:, :, None, :2], corners[:, None, :, :2])
    high = torch.minimum(corners[:, :, None, 2:], corners[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)  # (B, N, N)
    area = boxes[..., 2:].prod(-1)
    better = best[:, None] > best[..., None]
    iou = shared / (area[..., None] + area[:, None] - shared).clamp(min=1e-12)
    within = shared / area[..., None].clamp(min=1e-12)
    return (iou * better).amax(-1), (within * better).amax(-1)


def _compared(detector: PromptedDetector, features: FeatureMaps, prompts: PromptTokens) -> bool:
    return None not in (prompts.appearance, features.appearance, detector.appearance)


def _logit(scores: Tensor) -> Tensor:
    return scores.clamp(SMALLEST, LARGEST).logit()


def _numbers(source: PromptSource | Tensor, prompts: PromptTokens) -> Tensor:
    """(C,) index into `SOURCES` of each category."""
    if isinstance(source, Tensor):
        return source
    count = int(prompts.category.max()) + 1
    return torch.full((count,), SOURCES.index(source), device=prompts.category.device)


def _with_proposing(prompts: PromptTokens, proposing: PromptTokens, by_exemplars: Tensor) -> PromptTokens:
    """What names ask for, without what exemplars do (C,), and further categories that help to find boxes."""
    named = take(prompts, (~torch.isin(prompts.category, by_exemplars.nonzero()[:, 0])).nonzero()[:, 0])
    further = torch.arange(int(proposing.category.max()) + 1, device=named.valid.device) + len(by_exemplars)
    others = renumbered(proposing, further)
    size = len(prompts.embed)
    others = others._replace(embed=others.embed.expand(size, -1, -1), valid=others.valid.expand(size, -1))
    return together(named._replace(appearance=None), others)


def _asked(prompts: PromptTokens) -> Tensor:
    """(B or 1, 1, C), 1 of a category that an image is asked for, else 0."""
    certain = torch.full_like(prompts.embed[..., 0], torch.inf)  # (B or 1, T)
    return category_scores(certain[:, None], prompts.category, prompts.valid)


def _kept(boxes: Tensor, best: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """(B, N) indices of at most so many boxes, best first, and where they are real: images have different numbers."""
    images = torch.arange(len(boxes), device=boxes.device)[:, None].expand(boxes.shape[:2])
    order = batched_nms(cxcywh_to_xyxy(boxes).flatten(0, 1), best.flatten(), images.flatten(), DUPLICATE_IOU)
    rows = [order[order // boxes.shape[1] == image][:most] % boxes.shape[1] for image in range(len(boxes))]
    kept = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    counts = torch.tensor([len(row) for row in rows], device=boxes.device)
    return kept, torch.arange(kept.shape[1], device=boxes.device) < counts[:, None]


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, N) of x (B, Q, ...): (B, N, ...)."""
    return x[torch.arange(len(x), device=x.device)[:, None], index]
