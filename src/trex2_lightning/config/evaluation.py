"""Settings of evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trex2_lightning.config.checks import ConfigError, check_positive
from trex2_lightning.config.data import SplitConfig


@dataclass
class TaskConfig:
    """One task of a benchmark of many; what is not said is as in `data`."""

    folder: str = ""  # of the task, relative to `data.root`; "": its name
    val: SplitConfig = field(default_factory=SplitConfig)
    test: SplitConfig = field(default_factory=SplitConfig)
    reference: SplitConfig = field(default_factory=SplitConfig)


@dataclass
class EvalConfig:
    """What evaluation asks images with, and how it counts what is found."""

    metric: Literal["coco", "lvis", "counting"] = "coco"  # AP; lvis: federated AP; counting: AP and counts
    protocols: list[str] = field(default_factory=list)  # of protocol_names.py; empty: all that the run trained for
    # Data sets to evaluate one after the other, by name; the name "*" stands for every folder in `data.root`.
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    group: str = ""  # of the categories that are asked for and counted, such as `novel`; "": all
    max_detections: int = 100  # per image
    batch_size: int = 8
    # What is made of the vectors of a generic prompt's references: their mean; a mean in which those count more that
    # are like the others; or none, so that each box has the score of the one that suits it best.
    aggregation: Literal["mean", "weighted", "best"] = "mean"
    references: list[int] = field(default_factory=lambda: [1, 4, 16])  # images per category behind a generic prompt

    def __post_init__(self) -> None:
        check_positive("eval", self, "max_detections", "batch_size")
        if not self.references or min(self.references) < 1:
            raise ConfigError(f"eval.references={self.references} must be one or more numbers of at least 1")
