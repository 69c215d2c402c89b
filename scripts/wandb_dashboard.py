"""See `python scripts/wandb_dashboard.py --help`."""

from trex2_lightning.commands import dashboard
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(dashboard.main)
