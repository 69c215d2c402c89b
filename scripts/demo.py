"""Trains and shows the detector on the synthetic data set `shapes`; arguments are `key=value` overrides."""

from trex2_lightning import cli, demo

if __name__ == "__main__":
    cli.command(demo.demo)
