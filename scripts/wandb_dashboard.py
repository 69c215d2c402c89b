"""See `python scripts/wandb_dashboard.py --help`."""

from trex2_lightning import cli, dashboard

if __name__ == "__main__":
    cli.command(dashboard.wandb_dashboard)
