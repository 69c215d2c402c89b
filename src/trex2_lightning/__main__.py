"""`trex2 COMMAND ...`, or `python -m trex2_lightning COMMAND ...`: runs a file of commands/.

Commands are found there, by their `main`, and told by their docstrings; only the one that runs is imported.
"""

from __future__ import annotations

import argparse
import ast
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill

import trex2_lightning
from trex2_lightning.commands.terminal import command
from trex2_lightning.errors import InputError


def main() -> None:
    """The console script; arguments are those of the process, which Lightning starts again for every further device."""
    command(run)


def run(arguments: list[str]) -> None:
    """The first argument names a command, the others are its own.

    Raises:
        InputError: there is no such command, or as the command.
    """
    found = commands()
    width = get_terminal_size().columns - 2  # as argparse has it
    wrap = partial(fill, width=width, initial_indent="  ", subsequent_indent=" " * 20)
    listed = "\n".join(wrap(f"{name:17} {meaning}") for name, meaning in found.items())
    parser = argparse.ArgumentParser(
        "trex2",
        usage="trex2 COMMAND ...",
        description=f"{fill(str(trex2_lightning.__doc__), width)}\n\ncommands:\n{listed}",
        epilog="trex2 COMMAND --help has the arguments of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=trex2_lightning.__version__)
    name = parser.parse_args(arguments[:1]).command
    if name not in found:
        close = get_close_matches(name, found, 1)
        hint = f"did you mean {close[0]}?" if close else "trex2 --help lists them"
        raise InputError(f"there is no command {name}: {hint}")
    module = import_module(f"trex2_lightning.commands.{name.replace('-', '_')}")
    module.main(arguments[1:], prog=f"trex2 {name}")


def commands() -> dict[str, str]:
    """The first line of the docstring of every command, by its name."""
    found = {}
    for file in sorted((Path(__file__).parent / "commands").glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[file.stem.replace("_", "-")] = str(ast.get_docstring(tree)).splitlines()[0]
    return found


if __name__ == "__main__":
    main()
