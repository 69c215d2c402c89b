"""Batches of visual steps whose exemplars are of other images, or of objects without a name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datamodule_parts import VISUAL, datamodule, edit, fingerprint, named_and_nameless, truncate

from trex2_lightning.config import ExemplarsConfig, NamelessConfig
from trex2_lightning.data.images.image_files import ImageError
from trex2_lightning.errors import InputError


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nameless_batches_have_exemplars_and_no_phrases(tiny_coco: Path, num_workers: int) -> None:
    named_and_nameless(tiny_coco)
    nameless = NamelessConfig(images="train", share=0.5)
    module = datamodule(tiny_coco, steps=12, rhythm=VISUAL, nameless=nameless, num_workers=num_workers)
    assert module.names == ("red block", "green block", "blue block")
    batches = list(module.train_dataloader())
    assert [not batch.prompts.phrases for batch in batches] == [False, True] * 6
    for batch in batches[1::2]:
        labels = torch.cat([target.labels for target in batch.targets])
        assert batch.prompts.exemplars.boxes.shape[1] == max(len(labels), 1)
        assert sorted(labels.tolist()) == list(range(len(labels)))  # one object, one category
        assert batch.prompts.exemplars.valid.sum() == len(labels)
    named = datamodule(tiny_coco, steps=6, rhythm=VISUAL)
    pixels = [fingerprint(batch)[:2] for batch in named.train_dataloader()]
    assert [fingerprint(batch)[:2] for batch in batches[::2]] == pixels


def test_cross_image_batches_share_a_category_and_say_so(tiny_coco: Path) -> None:
    exemplars = ExemplarsConfig(cross_image=0.5)
    batches = list(datamodule(tiny_coco, steps=12, rhythm=VISUAL, exemplars=exemplars).train_dataloader())
    assert [batch.cross_image for batch in batches] == [False, True] * 6
    for batch in batches[1::2]:
        assert batch.prompts.exemplars.valid.any(-1).all(0).any(), "no category is in both images"


def test_cross_image_batches_need_images_that_share_a_category(tiny_coco: Path) -> None:
    edit(tiny_coco / "train.json", annotations=[])
    module = datamodule(tiny_coco, rhythm=VISUAL, exemplars=ExemplarsConfig(cross_image=0.5))
    with pytest.raises(InputError, match=r"no two images .* set data\.exemplars\.cross_image=0"):
        module.train_dataloader()


def test_unreadable_nameless_images_are_replaced_by_nameless_ones(tiny_coco: Path) -> None:
    named_and_nameless(tiny_coco)
    folder = tiny_coco / "nameless"
    folder.mkdir()
    for path in (tiny_coco / "train").iterdir():
        (folder / path.name).write_bytes(path.read_bytes()[: 100 if path.stem == "1" else None])
    values = {"rhythm": VISUAL, "nameless": NamelessConfig(share=1.0), "unreadable": 1.0}
    ids = [t.image_id for b in datamodule(tiny_coco, steps=3, **values).train_dataloader() for t in b.targets]
    assert sorted(ids) == [2, 3, 3, 4, 5, 6]  # 1 and 3 are portrait
    for path in folder.iterdir():
        truncate(path)
    with pytest.raises(ImageError, match=r"nor can any other .* data\.nameless\.images"):
        list(datamodule(tiny_coco, **values).train_dataloader())
