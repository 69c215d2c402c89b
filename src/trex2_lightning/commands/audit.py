"""Count what a run would learn from and be judged by."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console, parse


def main(arguments: list[str], prog: str = "audit.py") -> None:
    """`audit.py CONFIG key=value ...`; ends with status 1 where nothing can come of the data."""
    parser = argparse.ArgumentParser(prog, description="Count what a run would learn from and be judged by.")
    parser.add_argument("config", type=Path, help="experiment file")
    options, overrides = parse(parser, arguments)

    from trex2_lightning.config import load
    from trex2_lightning.data.inventory import check
    from trex2_lightning.training.build import build_datamodule

    data = build_datamodule(load(options.config, overrides))
    data.setup("fit")
    audits = data.audits()
    for one in audits:
        console.print(one.line, markup=False, highlight=False, soft_wrap=True)
        if one.by_name:
            console.print(f"    of each name: {one.by_name}", markup=False, highlight=False, soft_wrap=True)
        for reason in one.unusable:
            console.print(f"    {reason}", markup=False, highlight=False, soft_wrap=True)
    check(audits)
