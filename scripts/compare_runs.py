"""See `python scripts/compare_runs.py --help`."""

from trex2_lightning.commands import compare
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(compare.main)
