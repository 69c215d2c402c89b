"""Train a detector."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console, parse
from trex2_lightning.config import load
from trex2_lightning.evaluation.after_training import fit_scores
from trex2_lightning.training.fit import train


def main(arguments: list[str], prog: str = "train.py") -> None:
    """`train.py CONFIG [--resume | --folder] key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Train a detector.")
    parser.add_argument("config", type=Path, help="experiment file")
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint")
    parser.add_argument("--folder", action="store_true", help="only print the run's folder, for job files")
    options, overrides = parse(parser, arguments)
    config = load(options.config, overrides)
    if options.folder:
        console.print(config.folder, soft_wrap=True, markup=False, highlight=False)
        return
    train(config, resume=options.resume)
    fit_scores(config)
    console.print(f"written to {config.folder}", soft_wrap=True)
