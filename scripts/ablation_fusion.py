"""See `python scripts/ablation_fusion.py --help`."""

from trex2_lightning.commands import ablation_fusion
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(ablation_fusion.main)
