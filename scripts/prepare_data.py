"""See `python scripts/prepare_data.py --help`."""

from trex2_lightning.commands import prepare
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(prepare.main)
