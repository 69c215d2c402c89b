"""What the terminal shows: tables, and messages as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.commands.terminal import console
from trex2_lightning.commands.train import main as train_command
from trex2_lightning.evaluation.tables import ap_table


def test_the_table_has_a_column_for_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"text": {"all": 0.5, "rare": 0.25}, "random_phrases": {"all": 0.125}}
    console.print(ap_table({"AP": rows}))
    header, text, control = (
        line.split() for line in capsys.readouterr().out.splitlines() if "A" in line or "all" in line
    )
    assert [word for word in header if word.isalpha()] == ["metric", "prompt", "all", "rare"]
    assert ("0.500" in text, "0.250" in text, "0.125" in control, "-" in control) == (True, True, True, True)


def test_brackets_of_a_message_are_printed(error_line: Callable[..., str], tmp_path: Path) -> None:
    """They are rich's markup for styles."""
    assert "[bold]/x[/].yaml" in error_line(train_command, "[bold]/x[/].yaml")
