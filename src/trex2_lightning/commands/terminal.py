"""What all commands share: the console, one line for what the user can mend, and arguments with overrides."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.tables import console


def command(function: Callable[[list[str]], None]) -> None:
    """Run a command with the arguments of this process; wrong input ends it with status 2."""
    # Not where results go: job files take the folder of a run from there.
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("trex2_lightning").setLevel(logging.INFO)
    try:
        function(sys.argv[1:])
    except InputError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)


def parse(
    parser: argparse.ArgumentParser, arguments: list[str], others: str = "configuration values"
) -> tuple[argparse.Namespace, list[str]]:
    """Options by argparse; what has a `=` and no leading dash is an override."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=others)
    options = parser.parse_intermixed_args(arguments)
    return options, options.overrides
