"""What a run says of itself where there is no terminal."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest
from lightning.pytorch.callbacks import RichProgressBar

from trex2_lightning.config import Config
from trex2_lightning.training import trainer
from trex2_lightning.training.callbacks.log_lines import LogLines, duration
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


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [re.sub(r" [\d.e+-]+(,.*)?$", "", message) for message in caplog.messages if message.startswith("step ")]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_a_progress_bar_instead(
    terminal: bool, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "on_terminal", lambda: terminal)
    kinds = {type(callback) for callback in build_trainer(tiny_config()).callbacks}  # type: ignore[attr-defined]
    assert kinds & {RichProgressBar, LogLines} == {RichProgressBar if terminal else LogLines}


@pytest.mark.parametrize(("seconds", "words"), [(119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h")])
def test_how_long_it_takes(seconds: float, words: str) -> None:
    assert duration(seconds) == words
