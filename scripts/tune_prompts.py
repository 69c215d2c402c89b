"""See `python scripts/tune_prompts.py --help`."""

from trex2_lightning.commands import tune
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(tune.main)
