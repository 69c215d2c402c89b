"""`trex2 serve` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class LiveServer(NamedTuple):
    """Where it is served."""

    address: str
    process: int

    @property
    def memory(self) -> float:
        """MiB that the process has of the machine's."""
        status = Path(f"/proc/{self.process}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@contextmanager
def live_server(checkpoint: Path, *options: str) -> Iterator[LiveServer]:
    """Until it is stopped as Ctrl-C does."""
    command = [sys.executable, "-m", "trex2_lightning", "serve", "--model", str(checkpoint), "--port", "0", *options]
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    settings |= {"OMP_NUM_THREADS": "1"}  # as these tests
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings) as process:
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"serving (http://127\.0\.0\.1:\d+), until Ctrl-C\n", line)
            assert found, line + process.stderr.read()
            yield LiveServer(found[1], process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            told = process.communicate(timeout=60)
    assert (process.returncode, *told) == (130, "", "stopped: the page is gone, and all that was on it\n")
