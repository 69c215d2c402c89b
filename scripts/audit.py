"""See `python scripts/audit.py --help`."""

from trex2_lightning.commands import audit
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(audit.main)
