"""A small data set in any of the layouts that people have them in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pet_folders import NAMES, WRITERS

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("yolo", train=4, val=2)`: the folder, with so many pictures a split, a cat and a dog in turn."""

    def writing(form: str, **splits: int) -> Path:
        root = tmp_path / "pets"
        root.mkdir()
        for split, count in splits.items():
            WRITERS[form](root, split, [f"{split}{number}" for number in range(count)])
        if form == "yolo":
            places = "".join(f"{split}: images/{split}\n" for split in splits)
            (root / "data.yaml").write_text(f"names: {list(NAMES)}\n{places}")
        return root

    return writing
