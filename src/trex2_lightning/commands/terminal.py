"""What all commands share: the console, one line for what the user can mend, and arguments with overrides."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.tables import console

# Warnings of libraries that are true of every run, and nothing that anybody could mend.
NOISE = (
    r".*isinstance\(treespec, LeafSpec\)",
    r"Found \d+ module\(s\) in eval mode",  # what is frozen
    r"Checkpoint directory .* exists and is not empty",  # a run that goes on
    r"predict returned None",  # what it is called for is collected on the way
    r"The '\w+_dataloader' does not have many workers",
)


def command(function: Callable[[list[str]], None]) -> None:
    """Run a command with the arguments of this process; wrong input ends it with status 2."""
    _set_up_log()
    try:
        function(sys.argv[1:])
    except InputError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)


def _set_up_log() -> None:
    """To the standard error: job files take the folder of a run from where results go.

    In a file or a pipe a message is one line, which rich would break.
    """
    stderr = Console(stderr=True)
    handler = RichHandler(console=stderr, show_path=False) if stderr.is_terminal else logging.StreamHandler()
    form = "%(message)s" if stderr.is_terminal else "%(asctime)s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, datefmt="%H:%M:%S", handlers=[handler])
    logging.getLogger("trex2_lightning").setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


def parse(
    parser: argparse.ArgumentParser, arguments: list[str], others: str = "configuration values"
) -> tuple[argparse.Namespace, list[str]]:
    """Options by argparse; what has a `=` and no leading dash is an override."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=others)
    options = parser.parse_intermixed_args(arguments)
    return options, options.overrides
