"""See `python scripts/bench.py --help`."""

from trex2_lightning import bench, cli

if __name__ == "__main__":
    cli.command(bench.bench)
