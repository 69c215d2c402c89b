"""Measure speed and memory on a GPU, beside another implementation."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console


def main(arguments: list[str], prog: str = "bench_gpu.py") -> None:
    """`bench_gpu.py [--output FILE] [--compiled]`"""
    parser = argparse.ArgumentParser(prog, description="Measure speed and memory on a GPU, in some four minutes.")
    parser.add_argument(
        "--output", type=Path, default=Path("docs/benchmarks_gpu.md"), help="page to write; its part starts over"
    )
    parser.add_argument(
        "--compiled", action="store_true", help="its second part: what is compiled, in some ten minutes"
    )
    options = parser.parse_args(arguments)

    from trex2_lightning.studies.gpu_speed import measure_gpu

    measure_gpu(options.output, compiled=options.compiled)
    console.print(f"written to {options.output}", soft_wrap=True)
