"""Commands called as the shell would, and the one line that they fail with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.commands.terminal import command
from trex2_lightning.config import Config, save

TinyConfig = Callable[..., Config]
Command = Callable[[list[str]], None]


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """A command sets them for its process."""
    loggers = [logging.getLogger(), logging.getLogger("trex2_lightning")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def experiment(tiny_config: TinyConfig, tmp_path: Path) -> Path:
    save(tiny_config("train.max_steps=1"), tmp_path / "experiment.yaml")
    return tmp_path / "experiment.yaml"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`call(command, argument, ...)` as the shell would."""

    def calling(main: Command, *arguments: Any) -> None:
        monkeypatch.setattr("sys.argv", ["script.py", *map(str, arguments)])
        command(main)

    return calling


@pytest.fixture
def error_line(call: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that a command fails with."""

    def failing(main: Command, *arguments: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            call(main, *arguments)
        printed = capsys.readouterr()
        assert end.value.code == 2
        assert "Traceback" not in printed.out + printed.err
        lines = [line for line in printed.err.splitlines() if line.strip() and "━" not in line]
        assert "error:" not in printed.out
        assert lines[-1].startswith("error: "), lines
        assert sum(line.startswith("error: ") for line in lines) == 1
        return lines[-1].removeprefix("error: ")

    return failing
