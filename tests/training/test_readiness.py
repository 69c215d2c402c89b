"""A rank that cannot begin ends the others, in place of having them wait for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hanging import finished
from lightning.fabric.plugins.environments import LightningEnvironment

from trex2_lightning.config import Config, save
from trex2_lightning.errors import InputError
from trex2_lightning.training import readiness
from trex2_lightning.training.readiness import _Meeting, end_together

TinyConfig = Callable[..., Config]
TIMEOUT = 120  # seconds; without the meeting: half an hour


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("broken", [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.ci)])
def test_both_ranks_end_with_the_line_of_the_one_whose_data_is_missing(
    tiny_config: TinyConfig, tmp_path: Path, broken: int
) -> None:
    save(tiny_config("train.devices=2", "data.batch_size=1", "train.total_batch=2"), tmp_path / "two.yaml")
    (tmp_path / "empty").mkdir()
    job = {"JOB_NAME": "job", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1", "NODEID": "0"}
    common = os.environ | {f"SLURM_{name}": value for name, value in job.items()}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "trex2_lightning", "train", str(tmp_path / "two.yaml")]
            + ([f"data.root={tmp_path / 'empty'}"] if rank == broken else []),
            env=common | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=TIMEOUT)[0] for rank in ranks]
    finally:
        for rank in ranks:
            if rank.poll() is None:
                os.killpg(rank.pid, signal.SIGKILL)
    assert [rank.returncode for rank in ranks] == [2, 2], outputs
    lines = [[line for line in output.splitlines() if line.startswith("error:")] for output in outputs]
    assert lines[0] == lines[1]
    [line] = lines[0]
    assert str(tmp_path / "empty" / "train.json") in line
    assert line.endswith(f"(rank {broken}, on {socket.gethostname()})")


def test_a_rank_that_never_comes_is_waited_for_no_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LIMIT", timedelta(seconds=1))
    for name in ("MASTER_ADDR", "MASTER_PORT"):  # put back what the meeting sets
        monkeypatch.setenv(name, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}[name])
    environment = LightningEnvironment()
    environment.set_world_size(2)
    with pytest.raises(InputError, match=r"^not all of the 2 ranks were ready .* \(this is rank 0, on "):
        _Meeting(environment).__enter__()


def test_a_rank_ends_with_the_one_that_has_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which has been killed, and so cannot end it."""
    monkeypatch.setattr(readiness, "_PARENT_POLL", 0.1)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    ended, lives = os.pipe()  # whose end is read when nobody has it open for writing any more
    if not (first := os.fork()):
        os.environ["TREX2_STARTED_BY"] = str(os.getpid())
        if not os.fork():
            with end_together():
                os.write(lives, b"x")
                time.sleep(60)
        time.sleep(60)
        os._exit(0)
    os.close(lives)
    try:
        assert os.read(ended, 1) == b"x"
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
    before = time.monotonic()
    assert os.read(ended, 1) == b""
    assert time.monotonic() - before < 30
    os.close(ended)


def test_alone_an_error_stays_what_it_is() -> None:
    with pytest.raises(KeyError, match="x"), end_together():
        raise KeyError("x")


def test_a_process_that_does_not_hear_sigterm_is_not_waited_for_for_ever() -> None:
    """As a loading process that hangs at its start, with its parent's handler."""
    code = (
        "import multiprocessing, signal, time\n"
        "from trex2_lightning.training import readiness\n"
        "readiness._PATIENCE = 0.1\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "forked = multiprocessing.get_context('fork')\n"
        "child = forked.Process(target=time.sleep, args=(1000,), daemon=True)\n"
        "child.start()\n"
        "print(child.pid)\n"
    )
    done = finished([sys.executable, "-c", code], {}, seconds=60)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
