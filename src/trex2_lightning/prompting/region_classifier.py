"""Region classification: true boxes are named by their visual prompts (T-Rex2, section 4)."""

from __future__ import annotations

import torch

from trex2_lightning.metrics.regions import RegionAccuracy, RegionResult
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.padding import stack_exemplars
from trex2_lightning.ops.prompt_tokens import category_vectors
from trex2_lightning.prompting.protocols import Text
from trex2_lightning.structures import Batch, FeatureMaps, Prompts


class RegionClassifier:
    """Names true boxes: each alone is a visual prompt, and the names are ranked by their dot product with its vector.

    The alignment was trained on this measure (T-Rex2, section 4).
    """

    def __init__(self, text: Text, accuracy: RegionAccuracy) -> None:
        self._text = text
        self.accuracy = accuracy

    def start(self) -> None:
        self._text.start()
        self.accuracy.reset()

    def update(self, detector: PromptedDetector, batch: Batch, features: FeatureMaps) -> None:
        """Add the boxes of B images, whose `features` are those of `encode_image`."""
        shown = [dict(enumerate(target.boxes[:, None])) for target in batch.targets]
        _, exemplars = stack_exemplars(shown, device=features.tokens.device)
        vectors = detector.encode_prompts(Prompts(exemplars=exemplars), features).embed.float()  # (B, most boxes, D)
        names = category_vectors(self._text(detector, batch, features))[0].float()  # (C, D)
        for target, regions in zip(batch.targets, vectors, strict=True):
            with torch.autocast(regions.device.type, enabled=False):  # bfloat16 would make ties
                likeness = regions[: len(target.labels)] @ names.T  # (n, C)
            own = likeness.gather(1, target.labels[:, None])
            self.accuracy.update([RegionResult(target.image_id, target.labels, (likeness >= own).sum(1) - 1)])
