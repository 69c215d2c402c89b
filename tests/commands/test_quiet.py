"""What a command tells beside its own lines: nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.ci
def test_a_training_tells_its_own_lines_alone(experiment: Path) -> None:
    """Each with its time; none of Lightning's, of W&B's or of a library's warnings, also where the run goes on."""
    settings = ("train.max_steps=2", "train.val_every=2", "logging.wandb=offline")
    for options in ((), ("--resume", "train.save_every=1")):
        process = subprocess.run(
            [sys.executable, "-m", "trex2_lightning", "train", str(experiment), *settings, *options],
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "1000"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert process.returncode == 0, process.stderr
        lines = process.stderr.splitlines()
        assert [line for line in lines if not re.match(r"\d{4}-\d\d-\d\d [\d:]{8} (INFO|WARNING) ", line)] == []
        assert len(lines) == len(set(lines))
        assert not [word for word in ("GPU available", "litlogger", "stopped", "anonymous") if word in process.stderr]
        assert "training images; written to" in process.stderr
