"""Try a run before it takes days: memory, speed, loader, disk."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.markup import escape

from trex2_lightning.commands.terminal import console, parse


def main(arguments: list[str], prog: str = "preflight.py") -> None:
    """`preflight.py CONFIG [--steps N] key=value ...`; ends with status 1 where the run will not do."""
    parser = argparse.ArgumentParser(prog, description="Try a run before it takes days: memory, speed, loader, disk.")
    parser.add_argument("config", type=Path, help="experiment file, as of train")
    parser.add_argument(
        "--steps", type=int, default=20, help="optimizer steps of the widest images, and then as they come (20)"
    )
    options, overrides = parse(parser, arguments)

    from trex2_lightning.config import load
    from trex2_lightning.training.preflight import preflight

    report = preflight(load(options.config, overrides), options.steps)
    for line in report.lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for problem in report.problems:
        console.print(f"[red]will not do:[/red] {escape(problem)}", highlight=False, soft_wrap=True)
    if report.waited_for:
        sys.stdout.flush()
        os._exit(1)  # an orderly end would first take leave of the other ranks
    if report.failed:
        sys.exit(1)
