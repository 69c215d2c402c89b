"""Train and show the detector on the synthetic data set `shapes`."""

from __future__ import annotations

import argparse

from trex2_lightning.commands.terminal import if_stopped, parse


def main(arguments: list[str], prog: str = "demo.py") -> None:
    """`demo.py key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Train and show the detector on the synthetic data set shapes.")
    overrides = parse(parser, arguments, "configuration values of all files in experiments/demo/")[1]

    from trex2_lightning.studies.demo import demo

    with if_stopped(lambda: "the demo has a part at most; it starts anew each time"):
        demo(overrides)
