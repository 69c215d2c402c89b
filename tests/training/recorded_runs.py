"""Runs that are recorded, end by a crash, go on, and are compared bit for bit."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from trex2_lightning.config import Config
from trex2_lightning.structures import Batch
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule

State = dict[str, Any]
Record = TypeVar("Record")


def last_of(config: Config) -> Path:
    return config.folder / "checkpoints" / "last.ckpt"


def read(path: Path) -> State:
    return torch.load(path, weights_only=True)


def rows(config: Config) -> list[dict[str, str]]:
    """Of all CSV files of a run, in the order in which they were written."""
    files = sorted((config.folder / "csv").glob("*/metrics.csv"))
    return [row for file in files for row in csv.DictReader(file.open())]


class CrashError(Exception):
    """Stands for a real one."""


def recorded_losses(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> dict[int, float]:
    """Losses by batch, of runs from now on; batch `stop_at` crashes."""
    losses: dict[int, float] = {}
    step = DetectionModule.training_step

    def recording(self: DetectionModule, batch: Batch, batch_idx: int) -> Tensor:
        if batch_idx == stop_at:
            raise CrashError
        loss = step(self, batch, batch_idx)
        losses[batch_idx] = loss.item()
        return loss

    monkeypatch.setattr(DetectionModule, "training_step", recording)
    return losses


def interrupted_and_resumed(
    config: Config, monkeypatch: pytest.MonkeyPatch, stop_at: int, record: Callable[..., Record]
) -> tuple[Record, Record]:
    """What `record`, as `recorded_losses` does, has of the batches before the crash and of those after the restart."""
    with monkeypatch.context() as patch:
        before = record(patch, stop_at)
        with pytest.raises(CrashError):
            train(config)
    with monkeypatch.context() as patch:
        after = record(patch)
        train(config, resume=True)
    return before, after


def assert_same_end(whole: Config, broken: Config) -> None:
    one, other = read(last_of(whole)), read(last_of(broken))
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert_same(one[part], other[part], part)
    assert one["global_step"] == other["global_step"]


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal bit for bit, tensors included."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{index}")
    else:
        assert one == other, where
