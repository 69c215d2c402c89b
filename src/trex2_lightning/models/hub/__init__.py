"""Detectors to and from the Hugging Face hub's format."""
