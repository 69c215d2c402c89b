"""Figures that judge detections."""
