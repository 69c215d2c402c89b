"""See `python scripts/bench_gpu.py --help`."""

from trex2_lightning.commands import bench_gpu
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(bench_gpu.main)
