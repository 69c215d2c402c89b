"""See `python scripts/tune_prompts.py --help`."""

from trex2_lightning import cli

if __name__ == "__main__":
    cli.command(cli.tune_prompts)
