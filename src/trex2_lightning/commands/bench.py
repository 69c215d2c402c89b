"""Measure speed beside others' implementations."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console

SECTIONS = {
    "start-up": "the start of commands",
    "onnx": "exported graphs",
    "labelling": "trex2 label",
    "exemplars": "comparing with exemplars",
}


def main(arguments: list[str], prog: str = "bench.py") -> None:
    """`bench.py [--page FILE] [--threads N] [--start-up | --onnx | --labelling | --exemplars | --crowded]`"""
    parser = argparse.ArgumentParser(prog, description="Measure speed beside others' implementations.")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"), help="file to write")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch, but for the input pipeline (default: 2)")
    part = parser.add_mutually_exclusive_group()
    for name, meaning in SECTIONS.items():
        part.add_argument(
            f"--{name}", dest="part", action="store_const", const=name, help=f"{meaning} alone, in minutes"
        )
    part.add_argument("--crowded", action="store_true", help="print what a step with many boxes takes, in a minute")
    options = parser.parse_args(arguments)
    if options.crowded:
        from trex2_lightning.studies.crowded_speed import crowded_steps

        console.print(crowded_steps(), soft_wrap=True, markup=False, highlight=False)
        return

    from trex2_lightning.studies.speed import measure_speed, renew

    if options.part:
        renew(options.page, options.part, options.threads)
    else:
        measure_speed(options.page, options.threads)
    console.print(f"written to {options.page}", soft_wrap=True)
