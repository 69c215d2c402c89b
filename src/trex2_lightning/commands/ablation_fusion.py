"""Compare fusion and granularity on `shapes`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console, if_stopped


def main(arguments: list[str], prog: str = "ablation_fusion.py") -> None:
    """`ablation_fusion.py [--quick] [--seeds N ...] [--jobs N] [--output DIR] [--page FILE] key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Compare fusion and granularity on shapes.")
    parser.add_argument("--quick", action="store_true", help="a few steps of one seed: does everything work?")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1, of --quick 0")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time, on one thread each")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument(
        "--page", type=Path, help="file to write; default: docs/ablation_fusion.md, of --quick in runs/"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values of every run")
    options = parser.parse_intermixed_args(arguments)

    from trex2_lightning.studies.fusion_ablation import compare_fusion

    seeds = options.seeds or ([0] if options.quick else [0, 1])
    with if_stopped(lambda: "runs that are done are kept, and the same command goes on"):
        written = compare_fusion(
            seeds, options.jobs, options.output, options.page, options.overrides, quick=options.quick
        )
    console.print(f"written to {written}", soft_wrap=True)
