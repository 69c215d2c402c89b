"""What a trained detector finds and what it costs, as figures, files and tables."""
