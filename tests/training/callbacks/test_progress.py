"""A run is told as a bar where it is watched, and as lines where it is not."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

from trex2_lightning.config import Config
from trex2_lightning.training.callbacks import progress
from trex2_lightning.training.callbacks.progress import LogLines, duration
from trex2_lightning.training.callbacks.progress import progress as progress_callback
from trex2_lightning.training.fit import train
from trex2_lightning.training.trainer import build_trainer

TinyConfig = Callable[..., Config]


def test_steps_and_evaluations_are_told_a_line_each(tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture) -> None:
    """Every second step and the last, whatever batches a step has; a run that goes on counts its own time."""
    caplog.set_level(logging.INFO)
    few = ("logging.every=2", "train.save_every=3", "train.val_every=3")
    train(tiny_config(*few, "train.max_steps=3"))
    assert told(caplog) == ["step 2 of 3: loss", "step 3 of 3: loss", "step 3 of 3: AP on val"]
    lines = [message for message in caplog.messages if message.startswith("step 3")]
    assert re.fullmatch(r"step 3 of 3: loss [\d.]+, [\d.e-]+ s a step, 0 s left", lines[0])
    caplog.clear()
    train(tiny_config(*few, "train.max_steps=5"), resume=True)
    assert told(caplog)[:2] == ["step 4 of 5: loss", "step 5 of 5: loss"]


def test_a_run_that_goes_on_counts_its_own_steps_and_no_validation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten steps in 30 seconds, 10 of them for a validation."""
    caplog.set_level(logging.INFO)
    clock = iter([100.0, 110.0, 120.0, 130.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    trainer = SimpleNamespace(
        global_step=90, max_steps=200, log_every_n_steps=50, is_global_zero=True, callback_metrics={}
    )
    lines: Any = LogLines()
    lines.on_train_start(trainer)
    lines.on_validation_start()
    lines.on_validation_end(trainer)
    trainer.global_step = 100
    lines.on_train_batch_end(trainer, None, {"loss": 1.5})
    assert caplog.messages == ["step 100 of 200: loss 1.5, 2 s a step, 3 min left"]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [re.sub(r" [\d.e+-]+(,.*)?$", "", message) for message in caplog.messages if message.startswith("step ")]


def test_a_terminal_has_a_bar_and_no_other(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal, kind in ((True, RichProgressBar), (False, LogLines)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        assert isinstance(progress_callback(), kind)
        callbacks = build_trainer(tiny_config()).callbacks  # type: ignore[attr-defined]
        assert [type(one) for one in callbacks if isinstance(one, ProgressBar | LogLines)] == [kind]


@pytest.mark.parametrize(("seconds", "words"), [(119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h")])
def test_how_long_it_takes(seconds: float, words: str) -> None:
    assert duration(seconds) == words
