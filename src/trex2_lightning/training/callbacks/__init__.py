"""What watches a run; one callback per file."""
