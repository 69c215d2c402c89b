"""See `python scripts/ablation_prompts.py --help`."""

from trex2_lightning.commands import ablation_prompts
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(ablation_prompts.main)
