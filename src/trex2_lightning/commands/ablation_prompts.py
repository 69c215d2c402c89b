"""Compare the choices of stage 2 on `shapes`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console, if_stopped
from trex2_lightning.errors import InputError


def main(arguments: list[str], prog: str = "ablation_prompts.py") -> None:
    """`ablation_prompts.py [--rows NAME ...] [--seeds N ...] [--jobs N] [--output DIR] [--page FILE] key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Compare the choices of stage 2 on shapes.")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="default: all of experiments/ablation/prompts")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, on one thread each")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--page", type=Path, default=Path("docs/ablation_prompts.md"), help="file to write")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values of every run")
    options = parser.parse_intermixed_args(arguments)

    from trex2_lightning.studies.prompt_ablation import compare_prompts, rows

    chosen = options.rows or rows()
    if unknown := set(chosen) - set(rows()):
        raise InputError(f"--rows {min(unknown)} is none of {', '.join(rows())}")
    with if_stopped(lambda: "runs that are done are kept, and the same command goes on"):
        compare_prompts(chosen, options.seeds, options.jobs, options.output, options.page, options.overrides)
    console.print(f"written to {options.page}", soft_wrap=True)
