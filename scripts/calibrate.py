"""See `python scripts/calibrate.py --help`."""

from trex2_lightning.commands import calibrate
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(calibrate.main)
