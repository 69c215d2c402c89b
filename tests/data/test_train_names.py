"""Names of what is marked in the training images: those that a detector can know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datamodule_parts import datamodule, edit

from trex2_lightning.config import SetConfig


@pytest.mark.parametrize("several", [False, True])
def test_a_name_without_a_box_is_none_of_them(tiny_coco: Path, several: bool) -> None:
    path = tiny_coco / "train.json"
    known = [some["name"] for some in json.loads(path.read_text())["categories"]]
    edit(path, categories=[*json.loads(path.read_text())["categories"], {"id": 99, "name": "held out"}])
    files = SetConfig("train.json", "train", text=1.0)
    module = datamodule(tiny_coco, sets={"one": files, "other": files} if several else {})
    assert module.train_names == known
