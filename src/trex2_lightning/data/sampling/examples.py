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


class Unreadable:
    """Which images of a set cannot be read, as all workers together know it.

    Args:
        images: of the set.
        key: the setting that names it.
        most: share of the images looked at so far of which more may not be unreadable.
        told: what becomes of one.

    Attributes:
        met: (images,) bool, the ones that any worker has met.
    """

    def __init__(self, images: Sequence[ImageRecord], key: str, most: float, told: str) -> None:
        self.met, self._looked_at = (torch.zeros(len(images), dtype=torch.bool).share_memory_() for _ in range(2))
        self._key, self._most, self._told = key, most, told

    def look_at(self, index: int) -> None:
        self._looked_at[index] = True

    def note(self, index: int, error: ImageError) -> None:
        """Each image once, of which the first are named.

        Raises:
            ImageError: they are too many.
        """
        if self.met[index]:
            return
        self.met[index] = True
        count, looked_at = int(self.met.sum()), int(self._looked_at.sum())
        if count <= TOLD:
            log.warning("%s; %s", error, self._told)
        if count > self._most * max(looked_at, min(AT_LEAST, len(self.met))):
            raise ImageError(
                f"{self._key}: {count} of {looked_at} images looked at cannot be read, more than "
                f"data.unreadable={self._most} of them, such as {error}; check data.root and {self._key}.images, "
                "or set data.unreadable"
            )


class TrainImages(Dataset[Example]):
    """Augmented images by `Sample`; an unreadable one gives way to the next of its set that can be read, if there is
    any of its orientation, as larger padding might not fit the memory. Which they were is told at the end.

    Args:
        sets: the images.
        transform: augments.
        most_unreadable: see `Unreadable`, of each set.
    """

    def __init__(self, sets: Sequence[TrainSet], transform: Callable[..., Any], most_unreadable: float) -> None:
        self.sets = sets
        self.transform = transform
        self.unreadable = [Unreadable(some.images, some.key, most_unreadable, "skipped in training") for some in sets]

    def __getitem__(self, sample: Sample) -> Example:
        """Raises ImageError: too many images cannot be read."""
        chosen, unreadable = self.sets[sample.number], self.unreadable[sample.number]
        images = chosen.images
        for skipped, index in enumerate(in_place_of(images, sample.image)):
            unreadable.look_at(index)
            try:
                example = _load(images[index], self.transform, sample.seed)
                return example._replace(skipped=skipped, kind=sample.kind, source=sample.source, number=sample.number)
            except ImageError as error:
                last = error
                unreadable.note(index, error)
        raise ImageError(f"{last}; nor can any other training image: check data.root and {chosen.key}.images")


class TrainLoader(DataLoader[Example]):
    """Tells Lightning that it resumes exactly; where it stands follows from the trainer's step, so nothing is saved."""

    dataset: TrainImages

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def tell_unreadable(self) -> None:
        """Log what all ranks together could not read, each image once; they call it together."""
        own = [some.met.nonzero()[:, 0].tolist() for some in self.dataset.unreadable]
        ranks = from_every_rank(own)
        for number, some in enumerate(self.dataset.sets):
            if found := sorted({index for rank in ranks for index in rank[number]}):
                examples = ", ".join(str(some.images[index].path) for index in found[:TOLD])
                told = "%s: %d of its %d images could not be read, others stood for them: %s%s"
                log.warning(told, some.key, len(found), len(some.images), examples, ", ..." * (len(found) > TOLD))


class EvalImages(Dataset[Example]):
    """Images in the file's order, which were all readable before.

    One that is not any more gives way to the next that is: metrics take each image once, so figures are without it.

    Args:
        images: of the split.
        transform: resizes.
        key: the setting that names them.
        most_unreadable: see `Unreadable`.
    """

    def __init__(
        self, images: Sequence[ImageRecord], transform: Callable[..., Any], key: str, most_unreadable: float
    ) -> None:
        self.images = images
        self.transform = transform
        self._unreadable = Unreadable(images, key, most_unreadable, "left out of what is computed now")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        """Raises ImageError: too many cannot be read, or none of them."""
        for place in (*range(index, len(self.images)), *range(index)):
            self._unreadable.look_at(place)
            try:
                return _load(self.images[place], self.transform)
            except ImageError as error:
                last = ImageError(f"{error}; restore the file, or remove it from the annotations")
                self._unreadable.note(place, last)
        raise last


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
