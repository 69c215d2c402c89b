"""A few of the kills that `soak.py` makes any number of."""

from __future__ import annotations

from pathlib import Path

import pytest
from soak import KINDS, soak


@pytest.mark.slow
def test_chains_of_kills_equal_runs_without(tmp_path: Path) -> None:
    lines: list[str] = []
    counts = soak(10, 1, tmp_path, lines.append)
    assert sum(counts.values()) >= 10
    assert len(lines) >= len(KINDS)
    assert all(line.endswith(": equal") for line in lines)
