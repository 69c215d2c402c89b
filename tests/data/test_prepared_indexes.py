"""Prepared indexes in a run: they train and evaluate as the files that they were made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from datamodule_parts import datamodule, fingerprint

from trex2_lightning.config import SplitConfig
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import read_coco
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.index.writing import build_index
from trex2_lightning.errors import InputError


def prepared(root: Path, split: str) -> SplitConfig:
    """The split as an index that has all that its COCO file has."""
    report = Report()
    images = read_coco(root / f"{split}.json", ImageStore([root / split]), report)
    build_index(root / "indexes" / split, images, report, {})
    return SplitConfig(f"indexes/{split}")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_index_trains_and_evaluates_as_its_file_does(tiny_coco: Path, num_workers: int) -> None:
    files = datamodule(tiny_coco, num_workers=num_workers)
    index = datamodule(
        tiny_coco, train=prepared(tiny_coco, "train"), val=prepared(tiny_coco, "val"), num_workers=num_workers
    )
    assert index.names == files.names
    assert [*map(fingerprint, index.train_dataloader())] == [*map(fingerprint, files.train_dataloader())]
    assert [*map(fingerprint, index.val_dataloader())] == [*map(fingerprint, files.val_dataloader())]


def test_a_limit_takes_an_index_s_first_images_with_boxes(tiny_coco: Path) -> None:
    found = datamodule(tiny_coco, train=prepared(tiny_coco, "train"), limit=3).train_records.images
    assert [image.id for image in found] == [1, 2, 3]


def test_a_limit_is_one_of_val_too_where_that_is_the_training_split(tiny_coco: Path) -> None:
    """A few images can be learned by heart, and evaluated alone."""
    train = SplitConfig("train.json", "train")
    module = datamodule(tiny_coco, train=train, val=train, limit=3)
    assert [image.id for image in module.val_records.images] == [1, 2, 3]
    assert sum(len(batch.targets) for batch in module.val_dataloader()) == 3
    assert len(datamodule(tiny_coco, train=train, limit=1).val_records.images) == 3
    assert len(datamodule(tiny_coco, train=train, val=train).val_records.images) == 6


def test_a_limit_is_one_of_references_and_names_too(tiny_coco: Path) -> None:
    """A few images are all that is known: what others show is neither an exemplar nor, as a negative, absent."""
    module = datamodule(tiny_coco, limit=1)
    shown = {module.names[label] for label in module.train_records.images[0].labels.tolist()}
    assert len(shown) < len(module.names)
    assert {*module.train_names} == shown
    assert [{*some.pool} for some in module._sets()] == [shown]
    module.draw_references(module.names, 4)
    assert [image.id for image in module.drawn_images] == [1]
    whole = datamodule(tiny_coco, limit=1, reference=SplitConfig("val.json", "val"))
    whole.draw_references(whole.names, 4)
    assert len(whole.drawn_images) > 1


def test_without_its_index_a_run_ends_with_the_command_that_makes_it(tiny_coco: Path) -> None:
    with pytest.raises(InputError, match=r"indexes/lvis: no index is there; make it with trex2 prepare"):
        datamodule(tiny_coco, train=SplitConfig("indexes/lvis"))
