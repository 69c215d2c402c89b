"""See `python scripts/evaluate.py --help`."""

from trex2_lightning.commands import evaluate
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(evaluate.main)
