"""Pictures that cannot be read: told once, a few are replaced, many end the run, and none is met too late."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from datamodule_parts import datamodule, truncate

from trex2_lightning.config import Config
from trex2_lightning.data.images.image_files import ImageError
from trex2_lightning.data.inventory import check_images
from trex2_lightning.data.sampling.examples import TrainLoader
from trex2_lightning.training import fit
from trex2_lightning.training.module import DetectionModule

TinyConfig = Callable[..., Config]


def test_more_than_a_share_of_them_ends_the_run_with_an_example(tiny_coco: Path) -> None:
    """Of six, with two broken: a third."""
    for name in ("2.jpg", "5.jpg"):
        truncate(tiny_coco / "train" / name)
    assert len([*datamodule(tiny_coco, steps=6, unreadable=0.34).train_dataloader()]) == 6
    with pytest.raises(ImageError) as error:
        list(datamodule(tiny_coco, steps=6, unreadable=0.3).train_dataloader())
    message = str(error.value)
    assert message.startswith("data.train: 2 of ")
    assert "images looked at cannot be read, more than data.unreadable=0.3 of them, such as " in message
    assert message.count(".jpg") == 1
    assert message.endswith("check data.root and data.train.images, or set data.unreadable")


def test_a_missing_mount_ends_the_run_at_once(tiny_coco: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tiny_coco / "train").rename(tiny_coco / "elsewhere")
    (tiny_coco / "train").mkdir()
    with pytest.raises(ImageError, match=r"^data\.train: 1 of 1 images looked at .* no such image file; check data\."):
        list(datamodule(tiny_coco, num_workers=1).train_dataloader())
    assert len(caplog.messages) <= 1


def test_each_is_counted_once_over_workers_and_epochs_and_told_at_the_end(
    tiny_coco: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{number}.jpg" for number in (1, 2, 3, 4)]
    for name in names:
        truncate(tiny_coco / "train" / name)
    loader = datamodule(tiny_coco, steps=9, num_workers=2, unreadable=1.0).train_dataloader()
    assert isinstance(loader, TrainLoader)
    assert len([*loader]) == 9
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        loader.tell_unreadable()
    [message] = caplog.messages
    assert message.startswith("data.train: 4 of its 6 images could not be read, others stood for them: ")
    assert [Path(path).name for path in message.rsplit(": ", 1)[1].split(", ")] == [*names[:3], "..."]


def test_all_images_of_a_split_are_read_by_the_ranks_together(tiny_coco: Path) -> None:
    truncate(tiny_coco / "val" / "2.jpg")
    images = datamodule(tiny_coco).val_records.images
    check_images("data.val", images, 2, 0, 2)  # the first and the third
    with pytest.raises(ImageError, match=r"^data\.val: 1 of 1 images cannot be read, .*2\.jpg: cannot be read .*rest"):
        check_images("data.val", images, 2, 1, 2)


def test_a_broken_reference_of_validations_is_found_before_training(
    tiny_config: TinyConfig, tiny_coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though training could do without it."""
    monkeypatch.setattr(DetectionModule, "training_step", lambda *_: pytest.fail("too late"))
    for number in range(1, 6):  # the sixth has no boxes
        truncate(tiny_coco / "train" / f"{number}.jpg")
    with pytest.raises(ImageError, match=r"^data\.reference: (\d) of \1 images cannot be read, .*train/\d\.jpg"):
        fit.train(tiny_config("train.rhythm.visual=1", "data.unreadable=1"))


def test_a_broken_val_image_is_found_before_training(
    tiny_config: TinyConfig, tiny_coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "build_module", lambda _: pytest.fail("too late"))
    truncate(tiny_coco / "val" / "3.jpg")
    with pytest.raises(ImageError, match=r"^data\.val: 1 of 3 images .*val/3\.jpg"):
        fit.train(tiny_config())
