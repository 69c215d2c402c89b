"""See `python scripts/push.py --help`."""

from trex2_lightning.commands import push
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(push.main)
