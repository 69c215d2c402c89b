"""Commands that a test waits for, in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

LEFT = 30.0  # seconds for the stacks to be written


def finished(
    command: Sequence[str | Path], environment: dict[str, str], *, seconds: float
) -> subprocess.CompletedProcess[str]:
    """A command that has ended, with what it and the processes that it started have said.

    One that hangs fails the test with the stacks of all its processes: nobody can ask them afterwards.
    """
    process = subprocess.Popen(
        command,
        env=os.environ | environment | {"PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)  # faulthandler writes where each thread is
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=LEFT)
        _kill(process)
        output, errors = process.communicate()
        pytest.fail(f"no end after {seconds:.0f} s; it had said:\n{output[-3000:]}\n{errors[-20000:]}")
    finally:
        _kill(process)  # what the command has left behind, and what Ctrl-C left of it
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
