"""Compare fusion and granularity at full size."""

from __future__ import annotations

import argparse

from trex2_lightning.commands.terminal import if_stopped, parse


def main(arguments: list[str], prog: str = "ablation_full.py") -> None:
    """`ablation_full.py [--dry-run] key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Compare fusion and granularity at full size.")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left to do")
    options, overrides = parse(parser, arguments, "configuration values of every run")

    from trex2_lightning.studies.full_ablation import compare_full_size

    with if_stopped(lambda: "runs that are done are kept, and the same command goes on"):
        compare_full_size(overrides, dry_run=options.dry_run)
