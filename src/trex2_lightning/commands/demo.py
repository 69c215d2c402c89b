"""Train and show the detector on the synthetic data set `shapes`."""

from __future__ import annotations

import argparse

from trex2_lightning.commands.terminal import parse
from trex2_lightning.studies.demo import demo


def main(arguments: list[str], prog: str = "demo.py") -> None:
    """`demo.py key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Train and show the detector on the synthetic data set shapes.")
    demo(parse(parser, arguments, "configuration values of all files in experiments/demo/")[1])
