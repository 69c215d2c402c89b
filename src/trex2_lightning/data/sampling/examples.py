"""Images of a data set as examples, augmented for training or as they are for evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.tv_tensors import BoundingBoxes

from trex2_lightning.data.images.image_files import ImageError, read_image
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.data.sampling.collate import Example
from trex2_lightning.data.sampling.mixture import TrainSet
from trex2_lightning.data.sampling.orientation import in_place_of
from trex2_lightning.data.sampling.stream import Sample
from trex2_lightning.ops.boxes import xyxy_to_cxcywh

log = logging.getLogger(__name__)


class TrainImages(Dataset[Example]):
    """Augmented images by `Sample`; an unreadable one gives way to the next of its set that can be read, if there is
    any of its orientation, as larger padding might not fit the memory.
    """

    def __init__(self, sets: Sequence[TrainSet], transform: Callable[..., Any]) -> None:
        self.sets = sets
        self.transform = transform
        self.warned = [
            torch.zeros(len(some.images), dtype=torch.bool).share_memory_() for some in sets
        ]  # by any worker

    def __getitem__(self, sample: Sample) -> Example:
        """Raises ImageError: no image can be read."""
        chosen, warned = self.sets[sample.number], self.warned[sample.number]
        images = chosen.images
        for skipped, index in enumerate(in_place_of(images, sample.image)):
            try:
                example = _load(images[index], self.transform, sample.seed)
                return example._replace(skipped=skipped, kind=sample.kind, source=sample.source, number=sample.number)
            except ImageError as error:
                last = error
                if not warned[index]:
                    warned[index] = True
                    log.warning("%s; skipped in training", error)
        raise ImageError(f"{last}; nor can any other training image: check data.root and {chosen.key}.images")


class EvalImages(Dataset[Example]):
    """Images in the file's order."""

    def __init__(self, images: Sequence[ImageRecord], transform: Callable[..., Any]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        """Raises ImageError: without the image the figures would not be what they claim to be."""
        try:
            return _load(self.images[index], self.transform)
        except ImageError as error:
            raise ImageError(f"{error}; restore the file, or remove it from the annotations") from error


def _load(record: ImageRecord, transform: Callable[..., Any], seed: int = 0) -> Example:
    image = read_image(record.path, (record.height, record.width))
    real = ~record.crowd
    boxes = BoundingBoxes(record.boxes[real], format="XYXY", canvas_size=(record.height, record.width))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reset the GPU's generator too
        pixels, target = transform(image, {"boxes": boxes, "labels": record.labels[real]})
    height, width = pixels.shape[-2:]
    return Example(
        pixels=pixels.as_subclass(Tensor),
        boxes=xyxy_to_cxcywh(target["boxes"].as_subclass(Tensor) / torch.tensor([width, height, width, height])),
        labels=target["labels"],
        size=(record.height, record.width),
        image_id=record.id,
        judged=record.judged,
        seed=seed,
    )
