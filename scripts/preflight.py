"""See `python scripts/preflight.py --help`."""

from trex2_lightning.commands import preflight
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(preflight.main)
