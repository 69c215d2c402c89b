"""T-Rex2 (arXiv 2403.14610) and its early-fusion baseline as a PyTorch Lightning experiment package."""
