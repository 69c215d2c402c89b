"""What all commands share: where they print, how they end, and arguments with overrides.

Results go to stdout; errors, the log and progress to stderr. Status 0: done; 2: wrong input, told in one line; 130:
stopped by the user (Ctrl-C).
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from time import monotonic

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.tables import console

QUIET = 10.0  # seconds between two lines of progress where there is no terminal
STOPPED, TERMINATED = 130, 143  # as a shell counts SIGINT and SIGTERM
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a share of it, or what a file may have
# Warnings of libraries that are true of every run, and nothing that anybody could mend.
NOISE = (
    r".*isinstance\(treespec, LeafSpec\)",
    r"Found \d+ module\(s\) in eval mode",  # what is frozen
    r"Checkpoint directory .* exists and is not empty",  # a run that goes on
    r"Be aware that when using `ckpt_path`, callbacks",  # a run that goes on with another train.save_every
    r"predict returned None",  # what it is called for is collected on the way
    r"The '\w+_dataloader' does not have many workers",
    r"`torch.distributed.reduce_op` is deprecated",  # NiceGUI looks at all objects, for the server among them
)
aside = Console(stderr=True)


def command(function: Callable[[list[str]], None]) -> None:
    """Run a command with the arguments of this process, and end it as a user may expect."""
    _print_anything()
    _log_aside()
    try:
        function(sys.argv[1:])
    except InputError as error:
        aside.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        status = _status_of(end)
        if not status:
            raise
        kept = " ".join(getattr(end, "__notes__", ["nothing was written; start it again"]))
        aside.print(f"[red]stopped:[/red] {escape(kept)}", highlight=False, soft_wrap=True)
        sys.exit(status)
    except OSError as error:
        if error.errno not in FULL:
            raise
        place = f"{error.filename}: " if error.filename else ""
        kept = " ".join(getattr(error, "__notes__", ["start it again"]))
        told = f"{place}cannot be written ({error.strerror}): make room; {kept}"
        aside.print(f"[red]error:[/red] {escape(told)}", highlight=False, soft_wrap=True)
        sys.exit(2)


def _print_anything() -> None:
    """Escape what a stream's encoding lacks: names of files that are no UTF-8, and most of Unicode on Windows."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _log_aside() -> None:
    """What is done, and warnings; where no terminal is, a line each, with its time."""
    plain = logging.StreamHandler()
    plain.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler = RichHandler(console=aside, show_path=False) if aside.is_terminal else plain
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("trex2_lightning").setLevel(logging.INFO)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


@contextmanager
def if_stopped(kept: Callable[[], str]) -> Iterator[None]:
    """Where the user, a scheduler or a full disk stops what is done within, tell by `kept()` what there is, and how to
    go on.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        if _status_of(end):
            end.add_note(kept())
        raise
    except OSError as error:
        if error.errno in FULL:
            error.add_note(kept())
        raise


@contextmanager
def among_ranks() -> Iterator[None]:
    """Within, a rank that fails before it is ready ends the others too; a single process imports nothing for it."""
    if {"SLURM_NTASKS", "LOCAL_RANK"} & os.environ.keys():
        from trex2_lightning.training.readiness import end_together

        with end_together():
            yield
    else:
        yield


def _status_of(end: BaseException) -> int:
    """What a process ends with that the user or a scheduler has stopped; 0: nobody has.

    After SIGINT Lightning ends the process by itself; after SIGTERM it raises a SystemExit without a status.
    """
    if isinstance(end, KeyboardInterrupt) or isinstance(end.__context__, KeyboardInterrupt):
        return STOPPED
    return TERMINATED if type(end).__name__ == "SIGTERMException" else 0


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal, and elsewhere a line every few seconds; told how many are done, and of how many."""
    if aside.is_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=aside) as shown:
            task = shown.add_task(what, total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)
        return
    last = monotonic()

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        if monotonic() - last >= QUIET or done == total:
            last = monotonic()
            aside.print(f"{done:,} of {total:,} {what}" if total else f"{done:,} {what}", highlight=False)

    yield tell


def parse(
    parser: argparse.ArgumentParser, arguments: list[str], others: str = "configuration values"
) -> tuple[argparse.Namespace, list[str]]:
    """Options by argparse; what has a `=` and no leading dash is an override."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=others)
    options = parser.parse_intermixed_args(arguments)
    return options, options.overrides


def add_model(parser: argparse.ArgumentParser) -> None:
    """The option that names a detector; its value is `model`, a text."""
    parser.add_argument(
        "--model",
        "--ckpt",
        required=True,
        metavar="MODEL",
        help="checkpoint, folder of a run, a folder by trex2 push, or a Grounding DINO; or a repository of the hub",
    )


__all__ = [
    "STOPPED",
    "add_model",
    "among_ranks",
    "aside",
    "command",
    "console",
    "if_stopped",
    "parse",
    "shown_progress",
]
