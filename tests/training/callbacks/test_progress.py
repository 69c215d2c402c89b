"""A run is told as a bar where it is watched, and as lines where it is not."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from lightning.pytorch.callbacks import RichProgressBar

from trex2_lightning.config import Config
from trex2_lightning.training.callbacks.progress import ProgressLines, progress
from trex2_lightning.training.fit import train
from trex2_lightning.training.trainer import build_trainer


def test_a_terminal_has_a_bar_and_no_other(tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal, kind in ((True, RichProgressBar), (False, ProgressLines)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        assert isinstance(progress(), kind)
        trainer = build_trainer(tiny_config())
        assert [type(one) for one in trainer.callbacks if "Progress" in type(one).__name__] == [kind]


def test_a_training_is_told_in_twenty_lines(
    tiny_config: Callable[..., Config], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trex2_lightning.training.callbacks.progress.LINES", 2)
    caplog.set_level("INFO", "trex2_lightning")
    train(tiny_config("train.max_steps=5"))
    lines = [record.message for record in caplog.records if record.message.startswith("step ")]
    assert [line.rsplit(" ", 1)[0] for line in lines] == ["step 2 of 5, loss", "step 4 of 5, loss", "step 5 of 5, loss"]
    assert all(float(line.rsplit(" ", 1)[1]) > 0 for line in lines)
