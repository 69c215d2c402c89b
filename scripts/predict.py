"""See `python scripts/predict.py --help`."""

from trex2_lightning.commands import predict
from trex2_lightning.commands.terminal import command

if __name__ == "__main__":
    command(predict.main)
