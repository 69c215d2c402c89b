"""A few of the kills that `soak.py` makes any number of."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from recorded_runs import last_of, read
from soak import Kind, Moments, soak, start
from tiny_data import write_tiny
from torch import multiprocessing


# Each in a process of its own: ranks cannot be forked where another test has had autograd start its threads.
@pytest.mark.slow
def test_chains_of_kills_equal_runs_without(tmp_path: Path) -> None:
    multiprocessing.spawn(_kill_ten_times, args=(str(tmp_path),), nprocs=1)


def _kill_ten_times(_: int, root: str) -> None:
    lines: list[str] = []
    counts = soak(10, 1, Path(root), lines.append)
    assert sum(counts.values()) >= 10
    assert lines
    assert all(line.endswith(": equal") for line in lines)


@pytest.mark.ci
def test_ranks_that_hear_sigterm_wherever_they_are_end_with_the_step(tmp_path: Path) -> None:
    """One writes a checkpoint, the other waits for it: Lightning's handler had each wait for the other for ever."""
    write_tiny(tmp_path / "tiny")
    multiprocessing.spawn(_end_as_one_writes, args=(str(tmp_path),), nprocs=1)
    last = last_of(Kind(2, 1, 3).config(tmp_path, "ended"))
    assert read(last)["global_step"] == 3, "which is behind the one that was written"


def _end_as_one_writes(_: int, root: str) -> None:
    torch.set_num_threads(1)

    def look(self: Moments, what: str, *_: object) -> None:
        if self._last and what == "write, half":
            self._last = None
            os.killpg(0, signal.SIGTERM)

    Moments.look = look  # type: ignore[method-assign]
    assert not start(Kind(2, 1, 3).config(Path(root), "ended"), 1, Path(root) / "log")
