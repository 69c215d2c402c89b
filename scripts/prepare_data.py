"""See `python scripts/prepare_data.py --help`."""

from trex2_lightning import cli, prepare

if __name__ == "__main__":
    cli.command(prepare.prepare_data)
