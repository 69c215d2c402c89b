"""See `python scripts/export.py --help`."""

from trex2_lightning.commands import export
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(export.main)
