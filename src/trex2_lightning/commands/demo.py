"""Train and show the detector on the synthetic data set `shapes`."""

from __future__ import annotations

from trex2_lightning.studies import demo


def main(arguments: list[str]) -> None:
    """`demo.py key=value ...`, overrides of all files in experiments/demo/."""
    demo.demo(arguments)
