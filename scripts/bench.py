"""See `python scripts/bench.py --help`."""

from trex2_lightning.commands import bench
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(bench.main)
