"""See `python scripts/compare_runs.py --help`."""

from trex2_lightning import cli, compare

if __name__ == "__main__":
    cli.command(compare.compare_runs)
