"""Compare fusion and granularity at full size."""

from __future__ import annotations

import argparse

from trex2_lightning.commands.terminal import parse
from trex2_lightning.studies.full_ablation import compare_full_size


def main(arguments: list[str], prog: str = "ablation_full.py") -> None:
    """`ablation_full.py [--dry-run] key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Compare fusion and granularity at full size.")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left to do")
    options, overrides = parse(parser, arguments, "configuration values of every run")
    compare_full_size(overrides, dry_run=options.dry_run)
