"""T-Rex2 (arXiv 2403.14610) and its early-fusion baseline as a PyTorch Lightning experiment package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("trex2-lightning")
except PackageNotFoundError:  # read from its folder, without having been installed
    __version__ = "unknown"
