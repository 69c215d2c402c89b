"""See `python scripts/verify_official.py --help`."""

from trex2_lightning.commands import verify_official
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(verify_official.main)
