"""See `python scripts/label.py --help`."""

from trex2_lightning.commands import label
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(label.main)
