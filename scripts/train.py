"""See `python scripts/train.py --help`."""

from trex2_lightning.commands import train
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(train.main)
