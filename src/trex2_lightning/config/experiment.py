"""One run: all parts of the configuration together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trex2_lightning.config.checks import ConfigError
from trex2_lightning.config.data import DataConfig
from trex2_lightning.config.evaluation import EvalConfig
from trex2_lightning.config.loss import LossConfig
from trex2_lightning.config.model import ModelConfig
from trex2_lightning.config.training import LoggingConfig, OptimConfig, TrainConfig


@dataclass
class Config:
    """One run."""

    name: str = "run"
    output: str = "runs"  # the run is written to OUTPUT/NAME
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        if self.accumulate * self.data.batch_size * self.train.world_size != self.train.total_batch:
            raise ConfigError(
                f"train.total_batch={self.train.total_batch} is not a multiple of data.batch_size="
                f"{self.data.batch_size} x train.devices={self.train.devices} x train.nodes={self.train.nodes}"
            )
        rhythm, share = self.train.rhythm, self.data.nameless.share
        for kind, steps in {"text": rhythm.text, "visual": rhythm.visual if share < 1 else 0}.items():
            if self.data.sets and steps and not any(getattr(files, kind) for files in self.data.sets.values()):
                raise ConfigError(
                    f"train.rhythm.{kind}={steps} has no data: give one of data.sets ({', '.join(self.data.sets)}) a "
                    f"weight, data.sets.NAME.{kind}=1"
                )

    @property
    def accumulate(self) -> int:
        """Forward passes per optimizer step."""
        return self.train.total_batch // (self.data.batch_size * self.train.world_size)

    @property
    def folder(self) -> Path:
        return Path(self.output) / self.name
