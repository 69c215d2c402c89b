"""Streams over sets of a few images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trex2_lightning.config import ExemplarsConfig, RhythmConfig
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.data.sampling.mixture import TrainSet
from trex2_lightning.data.sampling.stream import Sample, TrainStream

TEXT = RhythmConfig()
MIXED = RhythmConfig(visual=2, text=1)
VISUAL = RhythmConfig(visual=1, text=0)
IMAGE = ImageRecord(1, Path("x.jpg"), 8, 8, *(torch.empty(0),) * 4)


def stream(points: float = 0.5, cross_image: float = 0.0, **values: Any) -> list[list[Sample]]:
    settings = {"sets": [some(5)], "batch_size": 2, "seed": 0, "rank": 0, "world": 1, "start": 0, "stop": 10}
    exemplars = ExemplarsConfig(points=points, cross_image=cross_image)
    return list(TrainStream(**(settings | values), exemplars=exemplars))


def some(number: int, **values: Any) -> TrainSet:
    """A set of so many images, of which nothing but their number matters."""
    return TrainSet([IMAGE] * number, **values)
