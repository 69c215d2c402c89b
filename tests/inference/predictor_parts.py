"""What the predictor's tests ask for."""

from __future__ import annotations

from trex2_lightning.structures import Box, Point

PHRASES = ("red block", "green block", "blue block")
BOX, OTHER, POINT = Box(5, 6, 30, 40), Box(20, 10, 45, 30), Point(12, 30)  # every image of the test split has them
