"""The datamodule's splits, and the batches that it evaluates."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from datamodule_parts import datamodule, named_and_nameless, truncate

from trex2_lightning.config import NamelessConfig, ShapesConfig
from trex2_lightning.data.formats import every_format
from trex2_lightning.data.images.image_files import ImageError
from trex2_lightning.data.shapes import rendering
from trex2_lightning.errors import InputError

# Evaluation batches


def test_eval_batches_are_the_file_in_order(tiny_coco: Path) -> None:
    module = datamodule(tiny_coco, "test")
    batches = list(module.test_dataloader())
    assert [target.image_id for batch in batches for target in batch.targets] == [1, 2, 3]
    assert module.names == ("red block", "green block", "blue block")
    for batch in batches:
        assert batch.prompts.phrases == module.names
    for target, record in zip(batches[0].targets, module.test_records.images, strict=False):
        size = torch.tensor([record.width, record.height])
        corners = torch.cat(
            [target.boxes[:, :2] - target.boxes[:, 2:] / 2, target.boxes[:, :2] + target.boxes[:, 2:] / 2], 1
        )
        torch.testing.assert_close(corners * size.repeat(2), record.boxes)
        assert torch.equal(target.labels, record.labels)
    assert batches[0].images.sizes.tolist() == [[r.height, r.width] for r in module.test_records.images[:2]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image_ends_evaluation_with_its_name(tiny_coco: Path, num_workers: int) -> None:
    truncate(tiny_coco / "val" / "3.jpg")
    with pytest.raises(ImageError) as error:
        list(datamodule(tiny_coco, num_workers=num_workers).val_dataloader())
    assert str(error.value).startswith("data.val: 1 of 3 images looked at cannot be read, more than data.unreadable=")
    assert str(tiny_coco / "val" / "3.jpg") in str(error.value)
    assert "restore the file" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif("TREX2_DATA" not in os.environ, reason="TREX2_DATA names no folder with real photographs")
@pytest.mark.parametrize("name", ["bccd", "coco128"])
def test_real_photographs(name: str) -> None:
    module = datamodule(Path(os.environ["TREX2_DATA"]) / name, "validate")
    batches = list(module.val_dataloader())
    assert sum(len(batch.targets) for batch in batches) == len(module.val_records.images) > 0
    for batch in batches:
        assert batch.images.pixels.isfinite().all()
        assert all((target.boxes >= 0).all() and (target.boxes <= 1).all() for target in batch.targets)


# Splits


def test_only_the_splits_in_use_must_exist(tiny_coco: Path) -> None:
    (tiny_coco / "test.json").unlink()
    module = datamodule(tiny_coco, "fit")
    assert len(module.train_records.images) == 6
    assert len(module.val_records.images) == 3
    with pytest.raises(InputError, match=r"test\.json: no such annotation file; set data\.root="):
        module.setup("test")


def test_setup_reads_a_file_once(tiny_coco: Path) -> None:
    module = datamodule(tiny_coco, "fit")
    (tiny_coco / "val.json").unlink()
    module.setup("validate")
    assert len(module.val_records.images) == 3


def test_missing_data_set_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set data\.root="):
        datamodule(tmp_path / "nowhere")


def test_shapes_are_rendered_before_they_are_read(tiny_coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def prepare(config: ShapesConfig, root: str | Path = "") -> Path:
        asked.append((config, root))
        return tiny_coco

    def prepare_nameless(config: ShapesConfig, root: Path) -> None:
        asked.append((config, root))
        named_and_nameless(root)

    monkeypatch.setattr(rendering, "prepare", prepare)
    monkeypatch.setattr(rendering, "prepare_nameless", prepare_nameless)
    module = datamodule(Path("cache"), format="shapes", shapes=ShapesConfig(preset="hard"))
    assert asked == [(ShapesConfig(preset="hard"), "cache")] * len(asked)  # nothing nameless, which nobody asked for
    assert len(module.train_records.images) == 6
    datamodule(Path("cache"), format="shapes", nameless=NamelessConfig(images="train", share=0.1))
    assert asked[-1] == (ShapesConfig(), tiny_coco)


@pytest.mark.parametrize("name", ["pascal", "voc", "COCO"])
def test_a_format_that_is_not_read_from_files_is_told_before_anything_is_built(tmp_path: Path, name: str) -> None:
    known = ", ".join(sorted([*(form.name for form in every_format().values() if form.direct), "shapes"]))
    assert {"coco", "lvis", "roboflow", "fsc147", "fscd_lvis", "shapes"} <= set(known.split(", "))
    with pytest.raises(InputError, match=rf"^data\.format={name} is none of {known}, .*trex2 prepare makes an index"):
        datamodule(tmp_path / "nowhere", format=name)
