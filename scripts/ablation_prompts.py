"""See `python scripts/ablation_prompts.py --help`."""

from trex2_lightning import ablation, cli

if __name__ == "__main__":
    cli.command(ablation.ablation_prompts)
