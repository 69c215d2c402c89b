"""Compare ideas for stage 2, at equal numbers of steps and images."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from trex2_lightning.commands.terminal import console, if_stopped
from trex2_lightning.errors import InputError
from trex2_lightning.studies.prompt_rows import ROWS, SETS


def main(arguments: list[str], prog: str = "ablation_prompts.py") -> None:
    """`ablation_prompts.py [--rows NAME ...] [--sets NAME ...] [--data DIR] [--screen] [--seeds N ...] ...`"""
    parser = argparse.ArgumentParser(prog, description="Compare ideas for stage 2, at equal numbers of steps.")
    parser.add_argument("--rows", nargs="+", default=[*ROWS], help=f"default: all: {', '.join(ROWS)}; several: a+b")
    told = f"of {', '.join(SETS)}; default: shapes, and photographs where --data is"
    parser.add_argument("--sets", nargs="+", choices=SETS, metavar="SET", help=told)
    parser.add_argument("--data", help="folder of groceries and logos; default: the environment variable TREX2_DATA")
    parser.add_argument("--screen", action="store_true", help="396 steps of one seed, to choose what to run in full")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="default: 0 1 2, of photographs 0 1")
    parser.add_argument(
        "--stage1", nargs="+", type=Path, default=[], help="checkpoints to start from, one for each of --seeds"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, on one thread each")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--page", type=Path, default=Path("docs/ablation_prompts.md"), help="file to write")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values of every run")
    options = parser.parse_intermixed_args(arguments)

    from trex2_lightning.studies.prompt_ablation import compare_prompts

    data = options.data or os.environ.get("TREX2_DATA", "")
    chosen = options.sets or (SETS if data else SETS[:1])
    if "photographs" in chosen and not data:
        raise InputError("photographs need the folder of groceries and logos: give --data FOLDER")
    if options.stage1 and len(options.stage1) != len(options.seeds):
        raise InputError("--stage1 needs a checkpoint for each of --seeds")
    with if_stopped(lambda: "runs that are done are kept, and the same command goes on"):
        compare_prompts(
            options.rows,
            {name: [f"data.root={data}"] if name == "photographs" else [] for name in chosen},
            options.seeds,
            options.jobs,
            options.output,
            options.page,
            options.overrides,
            stage1=dict(zip(options.seeds, options.stage1, strict=False)),
            screen=options.screen,
        )
    console.print(f"written to {options.page}", soft_wrap=True)
