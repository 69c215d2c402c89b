"""Columns of an index are what their heads say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trex2_lightning.data.index.columns import Column


def test_a_column_is_as_long_as_its_head_says(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(9, dtype="<i8"))
    content = (tmp_path / "a.npy").read_bytes()
    with pytest.raises(OSError, match="has no rows 5 to 1000000000000000000"):
        Column(tmp_path / "a.npy").read(5, 10**18)
    (tmp_path / "a.npy").write_bytes(content.replace(b"(9,)", b"(8" + b"0,)"))
    with pytest.raises(ValueError, match="shorter than its head says"):
        Column(tmp_path / "a.npy")
