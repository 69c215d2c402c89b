"""Measure speed beside others' implementations."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console


def main(arguments: list[str], prog: str = "bench.py") -> None:
    """`bench.py [--page FILE] [--threads N] [--start-up | --onnx | --crowded]`"""
    parser = argparse.ArgumentParser(prog, description="Measure speed beside others' implementations.")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"), help="file to write")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch, but for the input pipeline (default: 2)")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--start-up", action="store_true", help="the start of commands alone, in a minute")
    part.add_argument("--onnx", action="store_true", help="exported graphs alone, in minutes")
    part.add_argument("--crowded", action="store_true", help="print what a step with many boxes takes, in a minute")
    options = parser.parse_args(arguments)
    if options.crowded:
        from trex2_lightning.studies.crowded_speed import crowded_steps

        console.print(crowded_steps(), soft_wrap=True, markup=False, highlight=False)
        return

    from trex2_lightning.studies.speed import measure_speed, renew_exported, renew_startup

    if options.start_up:
        renew_startup(options.page)
    elif options.onnx:
        renew_exported(options.page)
    else:
        measure_speed(options.page, options.threads)
    console.print(f"written to {options.page}", soft_wrap=True)
