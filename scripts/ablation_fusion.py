"""See `python scripts/ablation_fusion.py --help`."""

from trex2_lightning import ablation_fusion, cli

if __name__ == "__main__":
    cli.command(ablation_fusion.ablation_fusion)
