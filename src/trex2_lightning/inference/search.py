"""What prompts ask for, prepared once and looked for in any number of images.

B images, C categories, n detections of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import compress

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from trex2_lightning.errors import InputError
from trex2_lightning.inference.thresholds import Threshold, lowest_scores
from trex2_lightning.models.calibration import SOURCES
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.prompt_tokens import from_vectors, renumbered, together
from trex2_lightning.ops.scores import rank, to_pixels, without
from trex2_lightning.prompting.finding import find_objects
from trex2_lightning.prompting.prompt_set import PromptSet
from trex2_lightning.structures import Detection, FeatureMaps, Prompts, PromptSource, PromptTokens
from trex2_lightning.training.module import DetectionModule


class Search:
    """Looks for what prompts ask for.

    Args:
        detector: in evaluation mode.
        prompts: of C categories, some of which are wanted.
        asked: the same as the detector is asked (`asked_of`).
        proposing: what finds boxes in place of exemplars, as of `find_objects`.
        most: detections of an image.
        thresholds: of each category (`thresholds_of`).
        autocast: makes the context in which the detector is called.
        negative: names whose objects are not wanted.
        nms: IoU above which the worse of two boxes of one category goes; None: nothing does.

    Raises:
        InputError: no IoU.
    """

    def __init__(
        self,
        detector: PromptedDetector,
        prompts: PromptSet,
        asked: PromptTokens,
        proposing: PromptTokens | None,
        most: int,
        thresholds: Mapping[str, float],
        autocast: Callable[[], torch.autocast],
        negative: Collection[str] = (),
        nms: float | None = None,
    ) -> None:
        if nms is not None and not 0 <= nms <= 1:
            raise InputError(f"the IoU {nms:g} of NMS is none: give one from 0 to 1")
        self._detector, self._names, self._asked, self._proposing = detector, prompts.names, asked, proposing
        self._most, self._autocast, self._nms = most, autocast, nms
        device = asked.embed.device
        self._sources = torch.tensor([SOURCES.index(source) for source in prompts.sources], device=device)
        self._unwanted = torch.tensor([name in negative for name in prompts.names], device=device)
        least = torch.tensor([thresholds[name] for name in prompts.names])  # as exact as scores are
        self._least = dict(zip(prompts.names, least.tolist(), strict=True))

    def __call__(self, features: FeatureMaps, sizes: Tensor) -> list[list[Detection]]:
        """Of each image what is found, best first; `sizes` (B, 2) are the images' heights and widths."""
        return [self.found(candidates) for candidates in self.candidates(features, sizes)]

    @torch.no_grad()
    def candidates(self, features: FeatureMaps, sizes: Tensor) -> list[list[Detection]]:
        """The same, and what is below its threshold."""
        with self._autocast():
            found = find_objects(self._detector, features, self._asked, self._sources, self._proposing, self._most)
        best = rank(without(self._unwanted, found.scores), found.boxes, self._most)
        boxes = to_pixels(best.boxes, sizes.to(best.boxes.device))
        asked = best.scores > 0  # 0: not asked for, or padding
        return [self._listed(*row) for row in zip(boxes, best.scores, best.labels, asked, strict=True)]

    def found(self, candidates: Sequence[Detection]) -> list[Detection]:
        """Of an image's candidates those that reach their thresholds."""
        return [one for one in candidates if one.score >= self._least[one.name]]

    def _listed(self, boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor) -> list[Detection]:
        """Of one image, from (n, 4), (n,), (n,) and (n,) bool: which are any."""
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if self._nms is not None:
            chosen = batched_nms(boxes, scores, labels, self._nms)
            boxes, scores, labels = boxes[chosen], scores[chosen], labels[chosen]
        rows = zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
        return [Detection(self._names[label], score, (box[0], box[1], box[2], box[3])) for box, score, label in rows]


def asked_of(
    prompts: PromptSet,
    device: torch.device,
    encode_words: Callable[[Prompts], PromptTokens] | None,
    named: Collection[PromptSource],
) -> PromptTokens:
    """The vector of each category, or the words of its name where it was made from a phrase and they are read.

    Args:
        prompts: the categories.
        device: of the detector.
        encode_words: phrases to tokens, of a detector that reads words; None: of one that does not.
        named: sources of what is asked for by name.
    """
    tokens, written = prompts.tokens(device), [source in named for source in prompts.sources]
    if encode_words is None or not any(written):
        return tokens
    chosen = torch.tensor(written, device=device)
    place, others = chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]
    words = encode_words(Prompts(tuple(compress(prompts.names, written))))
    joined = together(renumbered(words, place), renumbered(from_vectors(tokens.embed[:, others]), others))
    return joined._replace(appearance=tokens.appearance)


def thresholds_of(module: DetectionModule, prompts: PromptSet, threshold: Threshold = None) -> dict[str, float]:
    """The lowest score of each category that is kept.

    Args:
        module: whose checkpoint has one for each kind of prompt.
        prompts: the categories.
        threshold: as `lowest_scores`.

    Raises:
        InputError: as `lowest_scores`.
    """
    calibration = module.detector.calibration
    return lowest_scores(
        {
            name: calibration.lowest_score(source, compared=name in prompts.appearance)
            for name, source in zip(prompts.names, prompts.sources, strict=True)
        },
        threshold,
    )
