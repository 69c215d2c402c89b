"""See `python scripts/demo.py --help`."""

from trex2_lightning.commands import demo
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(demo.main)
