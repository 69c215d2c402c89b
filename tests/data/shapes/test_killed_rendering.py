"""A rendering that is killed leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

RENDERING = """
import os
from pathlib import Path
from trex2_lightning.config import ShapesConfig
from trex2_lightning.data.shapes import rendering

def render(job):
    Path({folder!r}, "workers", str(os.getpid())).touch()
    return draw(job)

draw, rendering._render = rendering._render, render
os.cpu_count = lambda: 2
rendering.prepare(ShapesConfig(num_train=100_000), Path({folder!r}, "shapes"))
"""


@pytest.mark.ci
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path: Path, end: signal.Signals) -> None:
    (tmp_path / "workers").mkdir()
    parent = subprocess.Popen([sys.executable, "-c", RENDERING.format(folder=str(tmp_path))], start_new_session=True)
    try:
        assert within(60, lambda: len(list((tmp_path / "workers").iterdir())) == 2 or parent.poll() is not None)
        workers = [int(path.name) for path in (tmp_path / "workers").iterdir()]
        parent.send_signal(end)
        assert parent.wait(30) == -end
        assert within(10, lambda: not any(map(is_alive, workers)))
    finally:
        if parent.poll() is None or any(map(is_alive, workers)):
            os.killpg(parent.pid, signal.SIGKILL)


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    stop = time.monotonic() + seconds
    while not (done := is_so()) and time.monotonic() < stop:
        time.sleep(0.05)
    return done


def is_alive(pid: int) -> bool:
    """A zombie, which nobody has asked for yet, is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
