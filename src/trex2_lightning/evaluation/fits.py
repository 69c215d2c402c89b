"""What is fitted after training, in one pass over known boxes and one over val: appearance, and what scores mean.

B images, N boxes, n objects, C categories, F kinds of evidence, A channels of appearance.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_iou

from trex2_lightning.config import Config, SplitConfig
from trex2_lightning.data.inventory import audit_split, check_usable
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.generic_prompts import encode_references
from trex2_lightning.evaluation.one_category import OneCategory, OneMixed
from trex2_lightning.models.appearance import Appearance
from trex2_lightning.models.calibration import SIMILARITY, SOURCES
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.boxes import cxcywh_to_xyxy
from trex2_lightning.ops.prompt_tokens import average
from trex2_lightning.prompting.finding import gather_evidence
from trex2_lightning.prompting.protocols import Prompting, promptings
from trex2_lightning.structures import Batch, PromptSource, PromptTokens, Targets
from trex2_lightning.training.build import build_datamodule
from trex2_lightning.training.fit import known_names
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.trainer import build_evaluator

log = logging.getLogger(__name__)

KNOWN_IMAGES = 2000  # of a split, whose boxes say which differences matter, and how much
COMPARED_BOXES = 5000  # of val, that are compared with the references
BEST = 300  # pairs of box and category of an image; others could not be detections
RIGHT = 0.5  # IoU with an object of the category
PROTOCOL_OF: dict[PromptSource, str] = {
    "text": "text",
    "interactive": "interactive_box",
    "generic": "generic",
    "mixed": "mixed",
}


def calibrate(config: Config, module: DetectionModule, evidence_used: str = "all") -> dict[PromptSource, float]:
    """Fit the appearance to training's boxes and the scores of each kind of prompt to the val split, in place.

    The detector's own weights stay as they are. A kind of prompt that finds nothing right, or nothing wrong, in val
    keeps what it has, with a line in the log.

    Args:
        config: the run, with the data to fit to.
        module: with the detector.
        evidence_used: key of `models.calibration.USED`.

    Returns:
        The lowest scores that `predict` keeps, of the kinds of prompts that were fitted.

    Raises:
        InputError: there is more than one process, each of which would fit to a part of val; or val has no box; or a
            part of the evidence is to be used of a detector that compares no appearance.
    """
    if evidence_used != "all" and module.detector.appearance is None:
        raise InputError(f"--evidence {evidence_used}: it compares no appearance: add model.appearance.name=backbone")
    if config.train.world_size > 1:
        raise InputError("scores are fitted in one process: leave train.devices and train.nodes at 1")
    if config.eval.aggregation != "mean":
        log.warning("eval.aggregation=%s: fitted is the mean, as predict takes it", config.eval.aggregation)
    if is_trained_on_val(config):
        log.warning("data.val is what it was trained on: the scores will promise too much of other images")
    trainer, data = build_evaluator(config, alone=True), build_datamodule(config)
    detector = module.detector
    data.setup("fit")
    check_usable(audit_split("data.val", data.val_records, evaluated=True))
    if not module.known_names:  # of a checkpoint from before they were written
        module.known_names = known_names(data.train_names)
    if detector.appearance_term is not None and detector.appearance_term.weight != 0:
        log.info("appearance keeps what it was fitted to: the learned weight was trained with that")
    elif detector.appearance is not None:
        vectors, labels = _known_boxes(detector, detector.appearance, trainer, data.known_dataloader(KNOWN_IMAGES))
        if len(vectors) > len(labels.unique()):
            detector.appearance.fit(vectors, labels)
        else:
            log.warning("no category has two boxes in training: what differs within one cannot be learned")
    count = max(config.eval.references)
    by_example = module.knows_exemplars and data.has_references
    if module.knows_exemplars and not by_example:
        log.warning("scores of boxes and points stay as they are: data.reference has no images for generic prompts")
    references = encode_references(module, trainer, data, data.names, count) if by_example else None
    shown = None if references is None else average(references).appearance
    if detector.appearance is not None and shown is not None:
        some_of_val = data.known_dataloader(KNOWN_IMAGES, "val")
        vectors, labels = _known_boxes(detector, detector.appearance, trainer, some_of_val)
        every = max(1, -(-len(vectors) // COMPARED_BOXES))
        device = detector.appearance.mean.device
        some = (vectors[::every].to(device), labels[::every].to(device))
        detector.appearance.fit_scale(*some, move_data_to_device(shown, device), len(data.names))
    wanted = {source: protocol for source, protocol in PROTOCOL_OF.items() if by_example or source == "text"}
    learned = module.visual_trained
    rows = promptings(wanted.values(), data.names, config.seed, references, config.eval.references, learned=learned)
    asked: list[Prompting] = [*rows.values()]
    if references is not None:
        asked.append(OneCategory(references, config.seed, "interactive"))
        # As often as all categories are asked for together.
        draws = range(len(config.eval.references))
        asked += [OneCategory(references, config.seed + draw, "generic") for draw in draws]
        asked.append(OneMixed(references, config.seed, learned=learned))
    images = data.val_records.images
    log.info("scores are fitted to %d images of data.val, each asked in %d ways", len(images), len(asked))
    collector = EvidenceCollector(module, asked, images, config.eval.max_detections)
    trainer.predict(collector, data.val_dataloader(), return_predictions=False)
    kept: dict[PromptSource, float] = {}
    for source, (evidence, right) in collector.collected().items():
        if right.any() and not right.all():
            kept[source] = detector.calibration.fit(source, evidence, right, evidence_used)
        else:
            missing = "wrong" if right.any() else "right"
            log.warning("%s prompts find nothing %s in val: their scores stay as they are", source, missing)
    return kept


def is_trained_on_val(config: Config) -> bool:
    """Whether the split that scores are fitted to is that of training: they would promise too much."""
    val, sets = config.data.val, config.data.sets.values()
    trained = [SplitConfig(one.annotations, one.images) for one in sets if one.text or one.visual]
    return val in trained if sets else val == config.data.train


def _known_boxes(
    detector: PromptedDetector, appearance: Appearance, trainer: L.Trainer, images: Any
) -> tuple[Tensor, Tensor]:
    """Vectors (n, A) and labels (n,) of the true boxes of images."""
    boxes = KnownBoxes(detector, appearance)
    trainer.predict(boxes, images, return_predictions=False)
    return torch.cat(boxes.vectors), torch.cat(boxes.labels)


class KnownBoxes(L.LightningModule):
    """Collects the appearance of true boxes, in `trainer.predict`."""

    def __init__(self, detector: PromptedDetector, appearance: Appearance) -> None:
        super().__init__()
        self.detector = detector
        self.appearance = appearance
        self.vectors: list[Tensor] = [torch.zeros(0, appearance.channels)]  # (n, A) each
        self.labels: list[Tensor] = [torch.zeros(0, dtype=torch.long)]  # (n,)

    def predict_step(self, batch: Batch, *_: Any) -> None:
        maps = self.appearance(batch.images)
        boxes = pad_sequence([target.boxes for target in batch.targets], batch_first=True)
        for vectors, target in zip(self.appearance.vectors(maps, boxes), batch.targets, strict=True):
            self.vectors.append(vectors[: len(target.boxes)].cpu())
            self.labels.append(target.labels.cpu())


class EvidenceCollector(L.LightningModule):
    """Collects what speaks for the boxes that prompts find, and whether it is right, in `trainer.predict`.

    Args:
        module: with the detector.
        asked: what images are asked with.
        records: of these images, which say where nobody knows what is right.
        most: detections of an image that are wanted.
    """

    def __init__(
        self, module: DetectionModule, asked: Sequence[Prompting], records: Sequence[ImageRecord], most: int
    ) -> None:
        super().__init__()
        self.module = module
        self._open = {image.id: image for image in records if image.judged is not None or image.crowd.any()}
        self._most = most
        self._asked = asked
        self._proposing: PromptTokens | None = None
        self._pairs: dict[PromptSource, list[tuple[Tensor, Tensor]]] = {each.source: [] for each in asked}

    def collected(self) -> dict[PromptSource, tuple[Tensor, Tensor]]:
        """Evidence (n, F) and right (n,) bool of each source, with appearance where some of it has any.

        A category without references is asked for by its name alone: what it finds was compared with nothing.
        """
        joined = {}
        for source, pairs in self._pairs.items():
            evidence, right = torch.cat([e for e, _ in pairs]), torch.cat([r for _, r in pairs])
            compared = evidence[:, SIMILARITY] > -torch.inf
            joined[source] = (evidence[compared], right[compared]) if compared.any() else (evidence, right)
        return joined

    def on_predict_start(self) -> None:
        self._proposing = self.module.proposing()
        for prompting in self._asked:
            prompting.start()

    def predict_step(self, batch: Batch, *_: Any) -> None:
        detector = self.module.detector
        features = detector.encode_image(batch.images)
        for prompting in self._asked:
            source = prompting.source
            prompts = prompting(detector, batch, features)
            found = gather_evidence(detector, features, prompts, source, self._proposing, self._most)
            number = torch.full(found.values.shape[2:3], SOURCES.index(source), device=self.device)
            scores = detector.calibration(found.values, number)
            for image, target in enumerate(batch.targets):
                right = is_right(found.boxes[image], scores[image], target)
                told = scores[image]
                if record := self._open.get(target.image_id):
                    told = told * (right | is_known(found.boxes[image], told.shape[1], record))
                right, told = right.flatten(), told.flatten()
                best = told.topk(min(BEST, len(told))).indices
                best = best[told[best] > 0]
                self._pairs[source].append((found.values[image].flatten(0, 1)[best].cpu(), right[best].cpu()))


def is_known(boxes: Tensor, num_categories: int, record: ImageRecord) -> Tensor:
    """(N, C) bool, whether a box (N, 4) without an object is wrong.

    It counts neither for nor against where the image does not judge the category, and in a crowd of it, as in metrics.
    """
    known = torch.ones(len(boxes), num_categories, dtype=torch.bool, device=boxes.device)
    if record.judged is not None:
        known[:] = torch.isin(torch.arange(num_categories), record.judged).to(known.device)
    crowds = record.boxes[record.crowd].to(boxes) / boxes.new_tensor([record.width, record.height] * 2)
    low, high = cxcywh_to_xyxy(boxes).chunk(2, -1)
    for crowd, label in zip(crowds, record.labels[record.crowd].tolist(), strict=True):
        if label < num_categories:
            shared = (torch.minimum(high, crowd[2:]) - torch.maximum(low, crowd[:2])).clamp(min=0).prod(-1)
            known[:, label] &= shared < RIGHT * boxes[:, 2:].prod(-1)
    return known


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
