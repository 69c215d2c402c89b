"""Training batches: what is on their images, and what is left out or replaced."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import pytest
import torch
from datamodule_parts import ALL_AUGMENTATIONS, datamodule, edit, fingerprint, truncate
from lightning.pytorch.utilities import rank_zero_only

from trex2_lightning.config import AugmentConfig, NegativesConfig, RhythmConfig
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.images.image_files import ImageError
from trex2_lightning.errors import InputError


def test_train_batches_hold_the_objects_where_they_are(tiny_coco: Path) -> None:
    """Every box's centre has the color that its phrase names, whatever the augmentation."""
    matches = []
    for batch in datamodule(tiny_coco, steps=15, augment=AugmentConfig(vertical_flip=0.5, crop=0.5)).train_dataloader():
        for index, target in enumerate(batch.targets):
            height, width = (int(batch.images.valid[index].any(axis).sum()) for axis in (1, 0))
            for box, label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True):
                pixel = batch.images.pixels[index, :, int(box[1] * height), int(box[0] * width)]
                color = ("red", "green", "blue")[int(pixel.argmax())]
                matches.append(batch.prompts.phrases[label] == f"{color} block")
    assert len(matches) > 20
    assert sum(matches) / len(matches) > 0.9  # objects may cover each other


def test_batches_are_of_one_orientation_after_augmentation(tiny_coco: Path) -> None:
    """Images 1 and 3 are portrait, four are landscape."""
    found = []
    for batch in datamodule(tiny_coco, steps=30, augment=ALL_AUGMENTATIONS).train_dataloader():
        heights, widths = (batch.images.valid.any(axis).sum(1) for axis in (2, 1))
        portrait = {target.image_id in {1, 3} for target in batch.targets}
        assert (heights >= widths).all() if True in portrait else (heights <= widths).all()
        found.append(portrait)
    assert (found.count({True}), found.count({False})) == (10, 20)


@pytest.mark.parametrize(("accumulate", "world"), [(2, 1), (1, 2)])
def test_an_orientation_of_fewer_images_than_a_step_shares_batches_and_the_log_says_it(
    tiny_coco: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    accumulate: int,
    world: int,
) -> None:
    ids = []
    with caplog.at_level(logging.INFO):
        for rank in range(world):
            monkeypatch.setattr(DetectionDataModule, "_world", world)
            monkeypatch.setattr(DetectionDataModule, "_rank", rank)
            monkeypatch.setattr(rank_zero_only, "rank", rank)
            loader = datamodule(tiny_coco, steps=3, accumulate=accumulate).train_dataloader()
            ids += [[target.image_id for target in batch.targets] for batch in loader]
    assert Counter(image for batch in ids for image in batch) == dict.fromkeys([1, 2, 3, 4, 5, 6], 2)
    assert caplog.messages == [
        "data.train: 2 images are portrait and 4 are not: fewer than an optimizer step's 4, so they share batches"
    ]


def test_items_depend_on_their_key_alone(tiny_coco: Path) -> None:
    torch.manual_seed(0)
    first = [fingerprint(batch) for batch in datamodule(tiny_coco, augment=ALL_AUGMENTATIONS).train_dataloader()]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = [fingerprint(b) for b in datamodule(tiny_coco, augment=ALL_AUGMENTATIONS, num_workers=2).train_dataloader()]
    assert again == first
    assert torch.equal(torch.get_rng_state(), state)  # the model's random numbers are left alone


def test_images_without_boxes_are_trained_on(tiny_coco: Path) -> None:
    batches = list(datamodule(tiny_coco, steps=3).train_dataloader())  # one epoch
    assert sorted(target.image_id for batch in batches for target in batch.targets) == [1, 2, 3, 4, 5, 6]
    assert any(len(target.boxes) == 0 for batch in batches for target in batch.targets)


def test_exemplars_lie_on_their_own_image_after_augmentation(tiny_coco: Path) -> None:
    rhythm = RhythmConfig(visual=1, text=0)
    num_exemplars = 0
    for batch in datamodule(tiny_coco, steps=15, rhythm=rhythm, augment=ALL_AUGMENTATIONS).train_dataloader():
        prompts = batch.prompts
        for index, target in enumerate(batch.targets):
            for category in range(len(prompts.phrases)):
                chosen = prompts.exemplars.boxes[index, category][prompts.exemplars.valid[index, category]].tolist()
                assert all(box in target.boxes[target.labels == category].tolist() for box in chosen)
                num_exemplars += len(chosen)
    assert num_exemplars > 20


def test_limit_takes_the_first_images_with_boxes(tiny_coco: Path) -> None:
    path = tiny_coco / "train.json"
    annotations = [item for item in json.loads(path.read_text())["annotations"] if item["image_id"] != 1]
    edit(path, annotations=annotations)
    module = datamodule(tiny_coco, limit=2)
    assert [image.id for image in module.train_records.images] == [2, 3]
    assert {t.image_id for batch in module.train_dataloader() for t in batch.targets} == {2, 3}
    edit(path, annotations=[])
    with pytest.raises(InputError, match=r"no image has boxes, and data\.limit=2"):
        datamodule(tiny_coco, limit=2).train_dataloader()


def test_crowds_are_not_targets(tiny_coco: Path) -> None:
    for split in ("train", "val"):
        path = tiny_coco / f"{split}.json"
        crowds = [item | {"iscrowd": 1} for item in json.loads(path.read_text())["annotations"]]
        edit(path, annotations=crowds)
    module = datamodule(tiny_coco)
    for loader in (module.train_dataloader(), module.val_dataloader()):
        assert all(len(target.boxes) == 0 for batch in loader for target in batch.targets)


def test_held_out_names_are_never_negatives(tiny_coco: Path) -> None:
    path = tiny_coco / "train.json"
    edit(path, categories=[*json.loads(path.read_text())["categories"], {"id": 9, "name": "held-out block"}])
    module = datamodule(tiny_coco, steps=10, negatives=NegativesConfig(count=80, foreign=0))
    assert {len(batch.prompts.phrases) for batch in module.train_dataloader()} == {3}


def test_unreadable_images_are_replaced_counted_and_reported_once(
    tiny_coco: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truncate(tiny_coco / "train" / "2.jpg")
    module = datamodule(tiny_coco, steps=6, unreadable=0.2)  # two epochs
    with caplog.at_level(logging.WARNING):
        batches = list(module.train_dataloader())
    ids = [target.image_id for batch in batches for target in batch.targets]
    assert len(ids) == 12
    assert 2 not in ids
    assert ids.count(4) == 4  # its own two places, and those of image 2: image 3 is portrait
    assert sum(batch.skipped for batch in batches) == 2
    [message] = caplog.messages
    assert "2.jpg: cannot be read" in message


def test_all_images_unreadable_is_an_error(tiny_coco: Path) -> None:
    for path in (tiny_coco / "train").iterdir():
        truncate(path)
    with pytest.raises(ImageError) as error:
        list(datamodule(tiny_coco, unreadable=1.0).train_dataloader())
    assert "nor can any other training image" in str(error.value)
    assert "\n" not in str(error.value)
