"""Count what training takes of a GPU's memory, without a GPU."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console


def main(arguments: list[str], prog: str = "bench_memory.py") -> None:
    """`bench_memory.py [--page FILE]`"""
    parser = argparse.ArgumentParser(prog, description="Count what training takes of a GPU's memory, without a GPU.")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks_gpu.md"), help="file with the table's marks")
    page = parser.parse_args(arguments).page

    from trex2_lightning.studies.memory_page import write_memory

    write_memory(page)
    console.print(f"written to {page}", soft_wrap=True)
