"""Trains and shows the detector on the synthetic data set `shapes`; arguments are `key=value` overrides."""

from trex2_lightning.commands import demo
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(demo.main)
