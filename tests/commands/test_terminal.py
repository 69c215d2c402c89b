"""What the terminal shows: tables, messages as they are, and how a command ends."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from trex2_lightning.commands.terminal import STOPPED, if_stopped
from trex2_lightning.commands.train import main as train_command
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.tables import ap_table, console

TALKATIVE = """
from trex2_lightning.commands.terminal import command, console
command(lambda _: [console.print("line") for _ in range(100_000)])
"""


def test_the_table_has_a_block_for_every_metric_and_a_column_for_every_group(
    capsys: pytest.CaptureFixture[str],
) -> None:
    groups = ("all", "seen", "frequent", "common", "rare", "composed", "novel")
    rows = {"text": dict.fromkeys(groups, 0.5) | {"rare": 0.25}, "region_classification": {"all": 0.125}}
    Console(width=80).print(ap_table({"ap": rows, "ap50": rows}))
    head, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head == ["prompt", *groups]
    block = [
        ["text", "0.500", "0.500", "0.500", "0.500", "0.250", "0.500", "0.500"],
        ["region_classification", "0.125", *["-"] * 6],
    ]
    assert lines == [["ap"], *block, ["ap50"], *block]


def test_a_long_metric_takes_no_room_of_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    groups = ("all", "seen", "frequent", "common", "rare", "composed", "novel")
    rows = {"interactive_box": dict.fromkeys(groups, 0.5)}
    Console(width=80).print(ap_table({"calibration_error_unfitted": rows}))
    _, *heading, figures = (line.split() for line in capsys.readouterr().out.splitlines())
    assert [word for line in heading for word in line] == ["calibration", "error", "unfitted"]
    assert figures == ["interactive_box", *["0.500"] * 7]


def test_brackets_of_a_message_are_printed(error_line: Callable[..., str], tmp_path: Path) -> None:
    """They are rich's markup for styles."""
    assert "[bold]/x[/].yaml" in error_line(train_command, "[bold]/x[/].yaml")


def test_a_name_that_no_stream_can_write_is_escaped(
    call: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a file whose name is no UTF-8, or of any letter where Windows has a code of its country."""

    def told(_: list[str]) -> None:
        console.print("gr\udcf6ße.jpg", soft_wrap=True)
        raise InputError("gr\udcf6ße.jpg: no such image file")

    with pytest.raises(SystemExit):
        call(told)
    printed = capsys.readouterr()
    assert "gr\\udcf6ße.jpg" in printed.out
    assert "gr\\udcf6ße.jpg: no such image file" in printed.err


def test_a_user_who_stops_a_command_is_told_what_is_kept(
    call: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_: list[str]) -> None:
        raise KeyboardInterrupt

    def ended(_: list[str]) -> None:
        """As Lightning does it."""
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    def half_done(arguments: list[str]) -> None:
        with if_stopped(lambda: "[half] is kept"):
            ended(arguments)

    again = "nothing was written; start it again"
    for main, told in ((stopped, again), (ended, again), (half_done, "[half] is kept")):
        with pytest.raises(SystemExit) as end:
            call(main)
        assert end.value.code == STOPPED == 130
        assert capsys.readouterr() == ("", f"stopped: {told}\n")


def test_a_full_disk_is_one_line(error_line: Callable[..., str], tmp_path: Path) -> None:
    def full(_: list[str]) -> None:
        with if_stopped(lambda: "a half is kept"):
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "[a].csv"))

    assert (
        error_line(full)
        == f"{tmp_path}/[a].csv: cannot be written (No space left on device): make room; a half is kept"
    )


def test_a_command_that_ends_by_itself_is_not_stopped(
    call: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        call(lambda _: sys.exit(1))
    assert end.value.code == 1
    assert capsys.readouterr() == ("", "")


def test_a_reader_who_has_seen_enough_ends_a_command_quietly() -> None:
    with subprocess.Popen([sys.executable, "-c", TALKATIVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""
