"""What the images of a training batch are asked with: one way from the batch to the detector's prompts and its targets.

B images, C categories in the batch vocabulary, U that the images are asked for, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trex2_lightning.config import AlignmentConfig
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.prompt_tokens import category_vectors, fitting, owners, take, together, with_vectors
from trex2_lightning.prompting.memory_bank import MemoryBank
from trex2_lightning.prompting.scope import Scope, share_appearance, share_prompts, vectors_of_step
from trex2_lightning.structures import Batch, CategoryVectors, Exemplars, FeatureMaps, Prompts, PromptTokens, Targets


class Asked(NamedTuple):
    """What the images of a batch are asked for, and what they have of it."""

    prompts: PromptTokens  # of U categories
    targets: tuple[Targets, ...]  # B, in terms of the U categories
    judged: Tensor | None  # (B, U) bool, as in `Prompts`
    num_categories: int  # U
    vectors: CategoryVectors | None = None  # of the categories that are to be aligned, where some are
    left_out: int = 0  # categories for which the detector had no room


class TrainingPrompts:
    """Text as the batch has it; exemplars shared among images, with further negatives, and aligned with their phrases.

    Args:
        scope: whose exemplars an image is asked with.
        memory_bank: further negatives of visual iterations; None: none.
        alignment: whether phrases are encoded in visual iterations too, and which, to be aligned with exemplars.
    """

    def __init__(self, scope: Scope, memory_bank: MemoryBank | None, alignment: AlignmentConfig) -> None:
        self.memory_bank = memory_bank
        self._scope: Scope = scope
        self._alignment = alignment

    def __call__(
        self, detector: PromptedDetector, batch: Batch, features: FeatureMaps, generator: torch.Generator
    ) -> Asked:
        """Encode the batch's prompts and make of them what its images are asked with; all ranks together.

        Args:
            detector: encodes.
            batch: of text, or of exemplars of one kind.
            features: of its images.
            generator: of the CPU, the only source of randomness.
        """
        own, given = detector.encode_prompts(batch.prompts, features), batch.prompts
        if given.exemplars is None:
            asked = Asked(own, batch.targets, given.judged, len(given.phrases))
        else:
            asked = self._shared(own, batch, generator)
            if batch.background is not None:
                asked = _with_background(asked, detector, batch.background, features)
            if (self._alignment.weight or self._alignment.relation) and given.phrases:
                asked = asked._replace(vectors=self._aligned(detector, own, batch))
        return _fitted(asked, detector.max_tokens, generator)

    def _aligned(self, detector: PromptedDetector, own: PromptTokens, batch: Batch) -> CategoryVectors:
        """The vectors of exemplars beside those of phrases, which get a gradient only where they are to be trained."""
        of_step = self._alignment.scope == "step"
        phrases = batch.prompts.phrases + (batch.negatives if of_step else ())
        with torch.set_grad_enabled(trains_text(self._alignment)):
            text = category_vectors(detector.text_encoder(phrases), len(phrases))
        return vectors_of_step(own, text, phrases) if of_step else CategoryVectors(text, own.embed, own.valid)

    def _shared(self, own: PromptTokens, batch: Batch, generator: torch.Generator) -> Asked:
        """In a visual iteration an image is asked for what others show too, and for what earlier ones have shown."""
        phrases, judged = batch.prompts.phrases, batch.prompts.judged
        prompts, names, places = share_prompts(own, phrases, self._scope, others=batch.cross_image)
        if self.memory_bank is not None:
            if self.memory_bank.config.positives:
                prompts = self.memory_bank.recalled(prompts, names, generator, batch.data_set)
            if phrases and judged is None:  # named things may be in nameless pictures, unmarked
                prompts = with_vectors(prompts, self.memory_bank.draw(names, generator, batch.data_set))
            self.memory_bank.add(phrases, own, batch.data_set)
        targets = tuple(target._replace(labels=places[target.labels]) for target in batch.targets)
        num_categories = prompts.embed.shape[1]
        if judged is not None:  # of what other ranks ask for nothing is known
            judged = judged.new_zeros(len(judged), num_categories).index_copy(1, places, judged)
        return Asked(prompts._replace(appearance=share_appearance(own, places)), targets, judged, num_categories)


def trains_text(alignment: AlignmentConfig) -> bool:
    """Whether visual iterations train the text encoder; relation distillation never does."""
    return bool(alignment.weight) and not alignment.detach_text


def _with_background(asked: Asked, detector: PromptedDetector, background: Exemplars, features: FeatureMaps) -> Asked:
    """One category more, of which nothing is in any image: what shows nothing shall find nothing."""
    nothing = detector.encode_prompts(Prompts(exemplars=background), features)._replace(appearance=None)
    number = torch.full_like(nothing.category, asked.num_categories)
    size, prompts = len(nothing.embed), asked.prompts
    of_each = prompts._replace(embed=prompts.embed.expand(size, -1, -1), valid=prompts.valid.expand(size, -1))
    prompts = together(of_each, nothing._replace(category=number))
    return asked._replace(prompts=prompts, num_categories=asked.num_categories + 1)


def _fitted(asked: Asked, limit: int | None, generator: torch.Generator) -> Asked:
    """Without the categories, and their boxes, for which the detector has no room: a batch never ends a run.

    What an image is not asked for it need not find. Negatives are left out first.
    """
    if limit is None or len(asked.prompts.category) <= limit:
        return asked
    device = asked.prompts.category.device
    sent = torch.cat([owners(asked.prompts), *(target.labels for target in asked.targets)]).cpu()  # one wait for a GPU
    owner, *labels = _numbers(sent, [len(asked.prompts.category), *(len(target.labels) for target in asked.targets)])
    places, numbers = fitting(owner, {*np.concatenate(labels).tolist()}, limit, generator)

    def back(x: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(x).to(device, non_blocking=True)

    prompts = take(asked.prompts, back(places))
    shown = prompts.appearance
    if shown is not None:
        number = back(numbers)[shown.category]
        shown = shown._replace(valid=shown.valid & (number >= 0), category=number.clamp(min=0))
    prompts = prompts._replace(category=back(numbers)[prompts.category], appearance=shown)
    targets = []
    for target, own in zip(asked.targets, labels, strict=True):
        known = np.flatnonzero(numbers[own] >= 0)
        targets.append(target._replace(labels=back(numbers[own[known]]), boxes=target.boxes[back(known)]))
    kept = np.flatnonzero(numbers >= 0)
    judged = None if asked.judged is None else asked.judged[:, back(kept)]
    return Asked(prompts, tuple(targets), judged, len(kept), asked.vectors, asked.num_categories - len(kept))


def _numbers(sent: Tensor, sizes: Sequence[int]) -> list[NDArray[np.int64]]:
    """What stands one after another in a tensor of the host."""
    return np.split(sent.numpy(), np.cumsum(sizes)[:-1])
