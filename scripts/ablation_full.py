"""See `python scripts/ablation_full.py --help`."""

from trex2_lightning.commands import ablation_full
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(ablation_full.main)
