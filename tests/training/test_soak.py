"""A few of the kills that `soak.py` makes any number of."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from recorded_runs import last_of, read
from soak import KINDS, Kind, Moments, soak, start
from tiny_data import write_tiny


@pytest.mark.slow
def test_chains_of_kills_equal_runs_without(tmp_path: Path) -> None:
    lines: list[str] = []
    counts = soak(10, 1, tmp_path, lines.append)
    assert sum(counts.values()) >= 10
    assert len(lines) >= len(KINDS)
    assert all(line.endswith(": equal") for line in lines)


@pytest.mark.ci
def test_ranks_that_hear_sigterm_wherever_they_are_end_with_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writes a checkpoint, the other waits for it: Lightning's handler had each wait for the other for ever."""
    torch.set_num_threads(1)
    write_tiny(tmp_path / "tiny")

    def look(self: Moments, what: str, *_: object) -> None:
        if self._last and what == "write, half":
            self._last = None
            os.killpg(0, signal.SIGTERM)

    monkeypatch.setattr(Moments, "look", look)
    config = Kind(2, 1, 3).config(tmp_path, "ended")
    assert not start(config, 1, tmp_path / "log")
    assert read(last_of(config))["global_step"] == 3, "which is behind the one that was written"
