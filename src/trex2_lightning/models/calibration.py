"""Scores that mean the same thing, whatever a category was prompted by: fitted on a split with ground truth.

B images, N boxes, C categories, F kinds of evidence, S sources of prompts, n pairs of box and category.
"""

from __future__ import annotations

import logging
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trex2_lightning.structures import PromptSource

log = logging.getLogger(__name__)
SOURCES: tuple[PromptSource, ...] = get_args(PromptSource)
# What speaks for and against a box: `prompting.finding` says what each is. The first three there always are.
EVIDENCE = ("score", "overlap", "inside", "best_score", "any_score", "similarity", "share", "in_picture")
ALWAYS, SIMILARITY = 3, EVIDENCE.index("similarity")
# Kinds of evidence that may be weighed where boxes were compared with exemplars: the learned score is the first.
USED = {"all": slice(None), "learned": slice(SIMILARITY), "appearance": slice(1, None)}
# What is not fitted: a learned score as it is; with appearance, times the root of the share of likeness, less where a
# better box is at its place. Where exemplars were not learned from and there is no phrase, `score` is the box's best.
UNFITTED = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
UNFITTED_APPEARANCE = (1.0, -3.0, -3.0, 0.0, 0.0, 0.0, 0.5, 0.0)
UNFITTED_APPEARANCE_BEFORE = (0.0, -3.0, -3.0, 1.0, 0.0, 0.0, 1.0, 0.0)  # what earlier checkpoints have in its place
UNFITTED_THRESHOLD = 0.3


class ScoreCalibration(nn.Module):
    """The probability that a box is an object of the category, by a logistic regression for each source of prompts.

    Platt's scaling (1999), of more than one score.
    """

    weight: Tensor
    bias: Tensor
    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        sizes = (2, len(SOURCES))  # without appearance and with it
        weight = torch.tensor([UNFITTED, UNFITTED_APPEARANCE])[:, None].repeat(1, sizes[1], 1)
        # Beside the weights in a checkpoint: these are those of a published detector too, to the last tensor.
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", torch.zeros(sizes), persistent=False)
        self.register_buffer("threshold", torch.full(sizes, UNFITTED_THRESHOLD), persistent=False)
        self.fitted = False
        self.fitted_without_appearance = False  # else a learned score is what it is, and nothing need be weighed

    def forward(self, evidence: Tensor, sources: Tensor) -> Tensor:
        """Scores of boxes.

        Args:
            evidence: (B, N, C, F), -inf where there is none.
            sources: (C,) int64, index into `SOURCES`.

        Returns:
            (B, N, C) in [0, 1]; 0 of a category that is not asked for, whose `score` is -inf.
        """
        compared = (evidence[..., SIMILARITY] > -torch.inf).long()
        return _weighed(evidence, self.weight[compared, sources], self.bias[compared, sources])

    def lowest_score(self, source: PromptSource, *, compared: bool) -> float:
        """What a detection must reach to be kept, where nothing else is asked for.

        Args:
            source: of its prompt.
            compared: it was compared with exemplars by their appearance.
        """
        return float(self.threshold[int(compared), SOURCES.index(source)])

    def fitted_sources(self) -> list[list[bool]]:
        """Whether `fit` has learned of prompts without appearance and with it, of each of `SOURCES`."""
        return self._changed().tolist()

    def fits(self) -> dict[str, Tensor]:
        """What `fit` has found, for a checkpoint."""
        return {name: tensor.cpu() for name, tensor in self.named_buffers()}

    def load_fits(self, fits: dict[str, Tensor]) -> None:
        """Take what `fits` gave; what is missing, or no number, stays as it is."""
        for name, tensor in self.named_buffers():
            if name in fits:
                fit = fits[name].to(tensor)
                tensor.copy_(torch.where(fit.isfinite(), fit, tensor))
                if not fit.isfinite().all():
                    log.warning("some fitted scores are no numbers and left out: fit them again by calibrate")
        before = (self.weight[1] == self.weight.new_tensor(UNFITTED_APPEARANCE_BEFORE)).all(-1) & (self.bias[1] == 0)
        self.weight[1, before] = self.weight.new_tensor(UNFITTED_APPEARANCE)
        self._note_fitted()

    def fit(self, source: PromptSource, evidence: Tensor, right: Tensor, used: str = "all") -> float:
        """Learn from boxes whether the evidence was right, and the score that parts them best (F1).

        Args:
            source: of the prompts.
            evidence: (n, F), all with appearance or all without.
            right: (n,) bool, the box is the best one of an object of the category; some are, and some are not.
            used: key of `USED`; without appearance all is.

        Returns:
            That score, which becomes the threshold.
        """
        compared = int(evidence[0, SIMILARITY] > -torch.inf)
        inputs = evidence[:, : len(EVIDENCE) if compared else ALWAYS].double()
        if compared:
            unused = torch.ones(len(EVIDENCE), dtype=torch.bool)
            unused[USED[used]] = False
            inputs = inputs.masked_fill(unused.to(inputs.device), 0)  # what is always 0 gets no weight
        wanted = right.double()
        mean, scale = inputs.mean(0), inputs.std(0).clamp(min=1e-3)
        weight = torch.zeros_like(mean, requires_grad=True)
        bias = wanted.mean().logit().requires_grad_()
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = (inputs - mean) / scale @ weight + bias
            # A little decay decides between kinds of evidence that say the same.
            value = F.binary_cross_entropy_with_logits(logits, wanted) + 1e-6 * weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        found = (weight / scale).detach()
        offset = (bias - (mean * found).sum()).detach()
        row = (compared, SOURCES.index(source))
        self.weight[row] = F.pad(found, (0, len(EVIDENCE) - len(found))).to(self.weight)
        self.bias[row] = offset.to(self.bias)
        self.threshold[row] = threshold_of_best_f1((inputs @ found + offset).sigmoid(), right).to(self.threshold)
        self._note_fitted()
        return float(self.threshold[row])

    def _note_fitted(self) -> None:
        changed = self._changed().any(1).tolist()
        self.fitted, self.fitted_without_appearance = any(changed), changed[0]

    def _changed(self) -> Tensor:
        as_it_is = self.weight.new_tensor([UNFITTED, UNFITTED_APPEARANCE])[:, None]
        return (self.weight != as_it_is).any(-1) | (self.bias != 0)


def unfitted_scores(evidence: Tensor) -> Tensor:
    """Scores (...) of evidence (..., F) as they are where nothing is fitted."""
    weight = evidence.new_tensor([UNFITTED, UNFITTED_APPEARANCE])
    return _weighed(evidence, weight[(evidence[..., SIMILARITY] > -torch.inf).long()], weight.new_zeros(()))


def threshold_of_best_f1(scores: Tensor, right: Tensor) -> Tensor:
    """The score (n,) from which on those that are `right` (n,) are told from the others with the best F1."""
    order = scores.argsort(descending=True)
    hits = right[order].double().cumsum(0)
    f1 = 2 * hits / (torch.arange(1, len(hits) + 1, device=hits.device) + hits[-1])
    return scores[order[f1.argmax()]]


def _weighed(evidence: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Scores (...) by evidence (..., F), each kind with its weight; 0 of a category that is not asked for."""
    terms = torch.where(weight == 0, 0.0, evidence * weight)  # 0 * -inf is no number
    return (terms.sum(-1) + bias).sigmoid().masked_fill(evidence[..., 0] == -torch.inf, 0)
