"""Pictures to label, and what is looked for in them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from trex2_lightning.inference.labelling.labeller import Labeller, LabelRequest

Pictures = Callable[..., Path]


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """`pictures("a.jpg", "sub/b.jpg")`: the folder that has them now, each of another size and content."""

    def write(*names: str) -> Path:
        for name in names:
            path, rng = tmp_path / "pictures" / name, random.Random(os.fsencode(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.new("RGB", (rng.randint(48, 96), rng.randint(48, 96)), (120, 120, 120))
            ImageDraw.Draw(picture).rectangle((10, 10, rng.randint(20, 40), rng.randint(20, 40)), fill="red")
            picture.save(path)
        return tmp_path / "pictures"

    return write


@pytest.fixture
def request_(visual_checkpoint: Path) -> LabelRequest:
    return LabelRequest(model=visual_checkpoint, phrases=("red block", "blue block"), threshold=0.0)


@pytest.fixture
def labeller(request_: LabelRequest) -> Labeller:
    return Labeller(request_)
