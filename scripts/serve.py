"""See `python scripts/serve.py --help`."""

from trex2_lightning.commands import serve
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(serve.main)
