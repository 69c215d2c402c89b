"""A folder of images of 40 x 30 pixels for readers' tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """`pictures("a.jpg", "sub/b.jpg")`: the folder that has them now."""

    def write(*names: str) -> Path:
        for name in names:
            path = tmp_path / "pictures" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30)).save(path)
        return tmp_path / "pictures"

    return write
