"""Compare runs by AP, cost and settings."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console


def main(arguments: list[str], prog: str = "compare_runs.py") -> None:
    """`compare_runs.py RUN RUN ... [--output DIR]`"""
    parser = argparse.ArgumentParser(prog, description="Compare runs by AP, cost and settings.")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folder of an evaluated run, or entity/project/id at W&B"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), help="folder for comparison.md and ap.png")
    options = parser.parse_args(arguments)

    from rich.table import Table

    from trex2_lightning.evaluation.compare import compare

    for block in compare(options.runs, options.output):
        shown = Table(*block.head, title=block.title)
        for line in block.lines:
            shown.add_row(*line)
        console.print(shown)
    console.print(f"written to {options.output}: comparison.md and ap.png", soft_wrap=True)
