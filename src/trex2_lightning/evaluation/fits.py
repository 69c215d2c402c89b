"""What is fitted after training, in one pass over known boxes and one over val: appearance, and what scores mean.

B images, N boxes, n objects, C categories, F kinds of evidence, A channels of appearance.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torchvision.ops import box_iou

from trex2_lightning.config import Config
from trex2_lightning.evaluation.generic_prompts import encode_references
from trex2_lightning.models.appearance import Appearance
from trex2_lightning.models.calibration import SOURCES
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.boxes import cxcywh_to_xyxy
from trex2_lightning.ops.prompt_tokens import average, stack
from trex2_lightning.prompting.finding import gather_evidence
from trex2_lightning.prompting.protocols import Prompting, promptings
from trex2_lightning.structures import Batch, FeatureMaps, PromptSource, PromptTokens, Targets
from trex2_lightning.training.build import build_datamodule
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.trainer import build_evaluator

log = logging.getLogger(__name__)

KNOWN_IMAGES = 2000  # of training, whose boxes say which differences matter
BEST = 300  # pairs of box and category of an image; others could not be detections
RIGHT = 0.5  # IoU with an object of the category
PROTOCOL_OF: dict[PromptSource, str] = {
    "text": "text",
    "interactive": "interactive_box",
    "generic": "generic",
    "mixed": "mixed",
}


def calibrate(config: Config, module: DetectionModule) -> None:
    """Fit the appearance to training's boxes and the scores of each kind of prompt to the val split, in place.

    The detector's own weights stay as they are. A kind of prompt that finds nothing right, or nothing wrong, in val
    keeps what it has, with a line in the log.
    """
    trainer, data = build_evaluator(config), build_datamodule(config)
    detector = module.detector
    data.prepare_data()
    data.setup("fit")
    if detector.appearance is not None:
        boxes = KnownBoxes(detector, detector.appearance)
        trainer.predict(boxes, data.known_dataloader(KNOWN_IMAGES), return_predictions=False)
        detector.appearance.fit(torch.cat(boxes.vectors), torch.cat(boxes.labels))
    count = max(config.eval.references)
    by_example = module.knows_exemplars and data.has_references
    references = encode_references(module, trainer, data, data.names, count) if by_example else None
    wanted = {source: protocol for source, protocol in PROTOCOL_OF.items() if by_example or source == "text"}
    rows = promptings(wanted.values(), data.names, config.seed, references, [count])
    asked: list[Prompting] = [*rows.values()]
    if references is not None:
        asked.append(Absent(references, config.seed))
    collector = EvidenceCollector(module, asked)
    trainer.predict(collector, data.val_dataloader(), return_predictions=False)
    for source, (evidence, right) in collector.collected().items():
        if right.any() and not right.all():
            detector.calibration.fit(source, evidence, right)
        else:
            log.warning("%s prompts find nothing %s in val: their scores stay as they are", source, "right")


class KnownBoxes(L.LightningModule):
    """Collects the appearance of true boxes, in `trainer.predict`."""

    def __init__(self, detector: PromptedDetector, appearance: Appearance) -> None:
        super().__init__()
        self.detector = detector
        self.appearance = appearance
        self.vectors: list[Tensor] = []  # (n, A) each
        self.labels: list[Tensor] = []  # (n,)

    def predict_step(self, batch: Batch, *_: Any) -> None:
        maps = self.appearance(batch.images)
        for image, target in enumerate(batch.targets):
            boxes = target.boxes.new_zeros(len(batch.targets), *target.boxes.shape)
            boxes[image] = target.boxes
            self.vectors.append(self.appearance.vectors(maps, boxes)[image])
            self.labels.append(target.labels)


class EvidenceCollector(L.LightningModule):
    """Collects what speaks for the boxes that prompts find, and whether it is right, in `trainer.predict`."""

    def __init__(self, module: DetectionModule, asked: Sequence[Prompting]) -> None:
        super().__init__()
        self.module = module
        self._asked = asked
        self._proposing: PromptTokens | None = None
        self._pairs: dict[PromptSource, list[tuple[Tensor, Tensor]]] = {each.source: [] for each in asked}

    def collected(self) -> dict[PromptSource, tuple[Tensor, Tensor]]:
        """Evidence (n, F) and right (n,) bool of each source."""
        return {
            source: (torch.cat([e for e, _ in pairs]), torch.cat([r for _, r in pairs]))
            for source, pairs in self._pairs.items()
        }

    def on_predict_start(self) -> None:
        self._proposing = self.module.proposing()
        for prompting in self._asked:
            prompting.start()

    def predict_step(self, batch: Batch, *_: Any) -> None:
        detector = self.module.detector
        features = detector.encode_image(batch.images)
        for prompting in self._asked:
            source = prompting.source
            found = gather_evidence(detector, features, prompting(detector, batch, features), self._proposing)
            number = torch.full(found.values.shape[2:3], SOURCES.index(source), device=self.device)
            scores = detector.calibration(found.values, number)
            for image, target in enumerate(batch.targets):
                best = scores[image].flatten().topk(min(BEST, scores[image].numel())).indices
                best = best[scores[image].flatten()[best] > 0]
                right = is_right(found.boxes[image], scores[image], target).flatten()
                self._pairs[source].append((found.values[image].flatten(0, 1)[best].cpu(), right[best].cpu()))


class Absent(Prompting):
    """In each image something that it does not have, by the exemplars of one reference: nothing that is found is right.

    Exemplars of the image itself alone would teach that whatever is found is what they show.

    Args:
        references: of batch size N, with C categories.
        seed: of the draw, which depends on the image too.
    """

    source = "interactive"

    def __init__(self, references: PromptTokens, seed: int) -> None:
        self._references = references
        self._seed = seed

    def __call__(self, _detector: PromptedDetector, batch: Batch, features: FeatureMaps) -> PromptTokens:
        prompts = move_data_to_device(self._references, features.tokens.device)
        places = prompts.valid.nonzero().tolist()  # of a reference and a category that it shows
        asked = []
        for target in batch.targets:
            has = {*target.labels.tolist()}
            others = [place for place in places if place[1] not in has]
            rows = torch.zeros_like(prompts.valid)
            if others:
                rows[(*random.Random(f"{self._seed} {target.image_id}").choice(others),)] = True
            asked.append(_only(prompts, rows))
        return stack(asked)


def _only(prompts: PromptTokens, rows: Tensor) -> PromptTokens:
    """The mean of the `rows` (N, C) of prompts, and no other category."""
    shown = prompts.appearance
    if shown is not None:
        shown = shown._replace(valid=rows)
    return average(prompts._replace(valid=rows, appearance=shown))


def is_right(boxes: Tensor, scores: Tensor, target: Targets) -> Tensor:
    """(N, C) bool, whether a box (N, 4) is the best of an object of a category by scores (N, C).

    The others of the object are duplicates, as AP counts them.
    """
    overlap = box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target.boxes))  # (N, n)
    own = scores[:, target.labels].masked_fill(overlap < RIGHT, 0)
    first = own.argmax(0)  # (n,)
    found = own.amax(0) > 0
    right = torch.zeros_like(scores, dtype=torch.bool)
    right[first[found], target.labels[found]] = True
    return right
