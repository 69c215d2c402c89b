"""Images of a data set as examples, augmented for training or as they are for evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.tv_tensors import BoundingBoxes

from trex2_lightning.data.images.image_files import ImageError, read_image
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.data.sampling.collate import Example
from trex2_lightning.data.sampling.mixture import TrainSet
from trex2_lightning.data.sampling.orientation import in_place_of
from trex2_lightning.data.sampling.stream import Sample
from trex2_lightning.ops.boxes import xyxy_to_cxcywh
from trex2_lightning.ops.distributed import from_every_rank

log = logging.getLogger(__name__)

TOLD = 3  # unreadable images, when they are met and at the end
AT_LEAST = 100  # images that a share is taken of, unless there are fewer


class TrainImages(Dataset[Example]):
    """Augmented images by `Sample`; an unreadable one gives way to the next of its set that can be read, if there is
    any of its orientation, as larger padding might not fit the memory.

    Args:
        sets: the images.
        transform: augments.
        most_unreadable: share of a set's images looked at so far of which more may not be unreadable.

    Attributes:
        unreadable: (images,) bool of each set, the ones that any worker has met.
    """

    def __init__(self, sets: Sequence[TrainSet], transform: Callable[..., Any], most_unreadable: float) -> None:
        self.sets = sets
        self.transform = transform
        self.most_unreadable = most_unreadable
        self.unreadable, self._looked_at = (
            [torch.zeros(len(some.images), dtype=torch.bool).share_memory_() for some in sets] for _ in range(2)
        )

    def __getitem__(self, sample: Sample) -> Example:
        """Raises ImageError: too many images cannot be read."""
        chosen = self.sets[sample.number]
        images = chosen.images
        for skipped, index in enumerate(in_place_of(images, sample.image)):
            self._looked_at[sample.number][index] = True
            try:
                example = _load(images[index], self.transform, sample.seed)
                return example._replace(skipped=skipped, kind=sample.kind, source=sample.source, number=sample.number)
            except ImageError as error:
                last = error
                self._note(sample.number, index, error)
        raise ImageError(f"{last}; nor can any other training image: check data.root and {chosen.key}.images")

    def _note(self, number: int, index: int, error: ImageError) -> None:
        """Each image once, of which the first are named; what the others were is told at the end."""
        unreadable, key = self.unreadable[number], self.sets[number].key
        if unreadable[index]:
            return
        unreadable[index] = True
        count, looked_at = int(unreadable.sum()), int(self._looked_at[number].sum())
        if count <= TOLD:
            log.warning("%s; skipped in training", error)
        if count > self.most_unreadable * max(looked_at, min(AT_LEAST, len(unreadable))):
            raise ImageError(
                f"{key}: {count} of {looked_at} images looked at cannot be read, more than "
                f"data.unreadable={self.most_unreadable} of them, such as {error}; check data.root and {key}.images, "
                "or set data.unreadable"
            )


class TrainLoader(DataLoader[Example]):
    """Tells Lightning that it resumes exactly; where it stands follows from the trainer's step, so nothing is saved."""

    dataset: TrainImages

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def tell_unreadable(self) -> None:
        """Log what all ranks together could not read, each image once; they call it together."""
        own = [some.nonzero()[:, 0].tolist() for some in self.dataset.unreadable]
        ranks = from_every_rank(own)
        for number, some in enumerate(self.dataset.sets):
            if found := sorted({index for rank in ranks for index in rank[number]}):
                examples = ", ".join(str(some.images[index].path) for index in found[:TOLD])
                told = "%s: %d of its %d images could not be read, others stood for them: %s%s"
                log.warning(told, some.key, len(found), len(some.images), examples, ", ..." * (len(found) > TOLD))


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
