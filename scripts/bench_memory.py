"""See `python scripts/bench_memory.py --help`."""

from trex2_lightning.commands import bench_memory
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(bench_memory.main)
