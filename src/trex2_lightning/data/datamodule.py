"""The Lightning datamodule: an endless stream of augmented training images, and evaluation splits in file order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from torch.utils.data import DataLoader

from trex2_lightning.config import DataConfig, RhythmConfig, SplitConfig
from trex2_lightning.data.images.transforms import eval_transform, train_transform
from trex2_lightning.data.inventory import SetAudit, audit_split
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.data.sampling.collate import Example, collate_eval, collate_mixture
from trex2_lightning.data.sampling.examples import EvalImages, TrainImages, TrainLoader
from trex2_lightning.data.sampling.foreign import foreign_names
from trex2_lightning.data.sampling.mixture import (
    TrainSet,
    annotated_names,
    check_names,
    known_images,
    read_mixture,
    shared_categories,
    with_nameless,
    with_near,
)
from trex2_lightning.data.sampling.orientation import portrait_apart
from trex2_lightning.data.sampling.references import DrawnReferences, References, Support, draw_references, support
from trex2_lightning.data.sampling.stream import TrainStream, rank_order
from trex2_lightning.data.sampling.vocabulary import ForeignNames, Nearest, negative_pool, read_dictionary
from trex2_lightning.data.shapes.layout import NAMELESS
from trex2_lightning.data.splits import SplitFiles, limited, of_group
from trex2_lightning.structures import PixelStatistics

STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("reference",)}


class DetectionDataModule(lightning.LightningDataModule):
    """Batches of files in a format that is read directly, of an index, or of the synthetic `shapes`.

    After `setup` the records of the stage's splits are there, and `names`: what evaluation prompts, in label order.
    The trainer must have `use_distributed_sampler=False`, and sees the whole run as one epoch.

    Args:
        config: the data set.
        statistics: what the detector wants its pixels normalised with.
        seed: of the order of the images, the augmentations and the negatives; not negative.
        total_steps: optimizer steps of the whole run.
        accumulate: batches per optimizer step.
        rhythm: which optimizer steps have visual prompts.
        eval_batch_size: images per device in evaluation.
        eval_group: of the categories that evaluation asks for; "": all.

    Raises:
        InputError: `data.format` is none that is read from files.
    """

    names: tuple[str, ...]
    _foreign: ForeignNames  # of `data.train`
    _drawn: DrawnReferences  # of generic prompts

    def __init__(
        self,
        config: DataConfig,
        *,
        statistics: PixelStatistics,
        seed: int,
        total_steps: int,
        accumulate: int,
        rhythm: RhythmConfig,
        eval_batch_size: int,
        eval_group: str = "",
    ) -> None:
        super().__init__()
        self.config = config
        self.statistics = statistics
        self.seed = seed
        self.total_steps = total_steps
        self.accumulate = accumulate
        self.rhythm = rhythm
        self.eval_batch_size = eval_batch_size
        self.eval_group = eval_group
        self._files = SplitFiles(config)
        self._records: dict[str, Records] = {}
        self._mixture: list[TrainSet] = []
        self.nearest: Nearest | None = None  # set before training where negatives are to be hard

    def setup(self, stage: str) -> None:
        """Read the annotations of the splits that the stage uses, unless they were read before.

        What is rendered is rendered then. Lightning's `prepare_data` is for that, but around it Lightning joins the
        ranks anew, and has no limit to how long they wait for one another.

        Raises:
            InputError: a file or an index is missing or broken; or a run of `data.sets` names no reference images.
        """
        if stage == "fit" and self.config.sets and not self._mixture:
            self._mixture = read_mixture(self.config, self.rhythm)
        for split in STAGE_SPLITS[stage]:
            if split == "train" and self.config.sets:
                continue
            if split not in self._records:
                read = self._files.read(split)
                self._records[split] = of_group(read, self.eval_group) if split in ("val", "test") else read
                check_names(self._records[split], "detection", "data.nameless, or data.sets with kind=nameless")
                if split == "train":
                    size = self.config.negatives.foreign if self.rhythm.text else 0
                    named = len(annotated_names(self.train_records))
                    self._foreign = foreign_names(self._records[split].names, named, size, "data.train")
            if split != "reference":
                self.names = self._records[split].names
        if stage == "fit" and self.config.nameless.share and NAMELESS not in self._records:
            self._records[NAMELESS] = self._files.read(NAMELESS)

    @property
    def train_records(self) -> Records:
        return limited(self._records["train"], self.config.limit)

    @property
    def val_records(self) -> Records:
        return limited(self._records["val"], self.config.limit * (self.config.val == self.config.train))

    @property
    def test_records(self) -> Records:
        return self._records["test"]

    def whole(self, split: Literal["val", "test"]) -> Records:
        """The split with all its images and the categories of all groups."""
        return self._files.read(split)

    @property
    def reference_records(self) -> Records:
        of_train = self.config.format != "shapes" and self.config.reference in (SplitConfig(), self.config.train)
        return limited(self._records["reference"], self.config.limit * of_train)

    @property
    def has_references(self) -> bool:
        """Whether generic prompts have images to be made of."""
        return bool(self.config.reference.annotations) or not self.config.sets

    def draw_references(self, names: Sequence[str], limit: int) -> References:
        """Choose up to `limit` images per category of `names`; `predict_dataloader` then gives each of them once."""
        self.setup("predict")
        self._drawn = draw_references(self.reference_records, names, limit, self.seed)
        return self._drawn.references

    @property
    def drawn_images(self) -> Sequence[ImageRecord]:
        """Those of the last `draw_references`."""
        return self._drawn.records.images

    def support(self, count: int) -> Support:
        """What generic prompts of the first `count` images of each category's draw are made of."""
        return support(self._drawn.records, self._drawn.references, count, self._drawn.num_boxes)

    def known_dataloader(self, limit: int, split: Literal["train", "val"] = "train") -> DataLoader[Example]:
        """Up to `limit` random images with boxes of names, as evaluation sees them; after `setup("fit")`.

        The labels of several training sets are different ones.
        """
        sets = self._mixture
        if split == "val" or not sets:
            records = self.val_records if split == "val" else self.train_records
            sets = [TrainSet(records.images, records.names)]
        images, names = known_images(sets, limit, self.seed)
        return self._eval_dataloader(images, names, f"data.{split}", self.config.unreadable)

    def train_dataloader(self) -> DataLoader[Example]:
        """What is left of the run: from the trainer's step, which a checkpoint has restored before this is called."""
        sets = self._train_sets()
        stream = TrainStream(
            sets,
            batch_size=self.config.batch_size,
            seed=self.seed,
            rank=self._rank,
            world=self._world,
            start=self.trainer.global_step * self.accumulate if self.trainer else 0,
            stop=self.total_steps * self.accumulate,
            accumulate=self.accumulate,
            rhythm=self.rhythm,
            exemplars=self.config.exemplars,
        )
        return TrainLoader(
            TrainImages(sets, train_transform(self.config, self.statistics), self.config.unreadable),
            batch_sampler=stream,
            collate_fn=partial(
                collate_mixture,
                sets=sets,
                count=self.config.negatives.count,
                max_exemplars=self.config.exemplars.limit,
                jitter=self.config.exemplars.jitter,
                background=self.config.exemplars.background,
            ),
            **self._loading,
        )

    def val_dataloader(self) -> DataLoader[Example]:
        return self._eval_dataloader(*self.val_records[:2], "data.val", self.config.unreadable)

    def test_dataloader(self) -> DataLoader[Example]:
        return self._eval_dataloader(*self.test_records[:2], "data.test", self.config.unreadable)

    def predict_dataloader(self) -> DataLoader[Example]:
        return self._eval_dataloader(*self._drawn.records[:2], "data.reference", 0.0)

    def _eval_dataloader(
        self, images: Sequence[ImageRecord], names: Sequence[str], key: str, most_unreadable: float
    ) -> DataLoader[Example]:
        dataset = EvalImages(images, eval_transform(self.config, self.statistics), key, most_unreadable)
        return DataLoader(
            dataset,
            batch_size=self.eval_batch_size,
            sampler=rank_order(len(dataset), self.eval_batch_size, self._rank, self._world),
            collate_fn=partial(collate_eval, names=names),
            **self._loading | {"persistent_workers": False},  # else they would sit beside those of training for days
        )

    def audits(self) -> list[SetAudit]:
        """What training sees and what it is judged by in between; after `setup("fit")`."""
        found = []
        for some in self._sets():
            assert some.records
            asked = some.kind != "nameless" and some.text * self.rhythm.text
            negatives = len({*some.pool, *some.foreign.names}) if asked else None
            found.append(audit_split(some.key, some.records, negatives=negatives, nameless=some.kind == "nameless"))
        return [*found, audit_split("data.val", self.val_records, evaluated=True)]

    def _sets(self) -> list[TrainSet]:
        """As they were read."""
        sets = self._mixture
        if not sets:
            records = self.train_records
            pool = negative_pool(self.config.negatives, annotated_names(records))
            sets = [TrainSet(records.images, records.names, pool, foreign=self._foreign, records=records)]
        if share := self.config.nameless.share:
            nameless = self._records[NAMELESS]
            *named, rendered = with_nameless(sets, nameless.images, share)
            return [*named, rendered._replace(records=nameless)]
        return [*sets]

    def _train_sets(self) -> list[TrainSet]:
        sets = self._sets()
        if not self._mixture:
            shared = shared_categories(self.train_records) if self.config.exemplars.cross_image else None
            sets[0] = sets[0]._replace(shared=shared)
        if self.nearest is not None:
            sets = with_near(sets, self.nearest, self.config.negatives.hard)
        least = self.config.batch_size * self._world * self.accumulate
        return [some._replace(portrait=portrait_apart(some.images, least, some.key)) for some in sets]

    @property
    def num_train_images(self) -> int:
        """Of all sets together, without nameless ones of `data.nameless`."""
        return sum(len(some.images) for some in self._mixture) or len(self.train_records.images)

    @property
    def train_names(self) -> list[str]:
        """Names of what is marked in the training images."""
        if not self._mixture:
            return annotated_names(self.train_records)
        named = [some for some in self._mixture if some.kind == "detection"]
        return [*dict.fromkeys(name for some in named for name in annotated_names(some))]

    @property
    def train_phrases(self) -> dict[str, Sequence[str]]:
        """What training may ask for, by the settings that name where it comes from."""
        phrases: dict[str, Sequence[str]] = {
            f"data.sets.{some.name}": some.names for some in self._mixture if some.kind != "nameless"
        }
        if not self._mixture:
            phrases["data.train"] = self._records["train"].names
        negatives = self.config.negatives
        if negatives.source != "dataset":
            phrases["data.negatives.dictionary"] = read_dictionary(Path(negatives.dictionary))
        foreign = [some.foreign for some in self._mixture] or [self._foreign]
        if names := set[str]().union(*(some.names for some in foreign)):
            phrases["data.negatives.foreign"] = sorted(names)
        return phrases

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    @property
    def _loading(self) -> dict[str, Any]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {
            "num_workers": self.config.num_workers,
            "persistent_workers": self.config.num_workers > 0,
            "pin_memory": on_gpu,
            "generator": torch.Generator().manual_seed(self.seed),  # else loading would advance the model's randomness
        }
