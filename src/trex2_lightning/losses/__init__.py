"""Matching and loss terms; they never see a model."""
