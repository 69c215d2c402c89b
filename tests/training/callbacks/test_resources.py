"""Speed per optimizer step, with a clock that the test turns itself."""

import csv
import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from trex2_lightning.training.callbacks import resources
from trex2_lightning.training.callbacks.resources import ResourceMonitor


class Clock:
    """Stands in for the `time` module."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Toy(LightningModule):
    """A training batch takes one second, a validation batch a hundred."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.clock = clock

    def training_step(self, batch: Tensor) -> Tensor:
        self.clock.now += 1
        loss = self.layer(batch).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Tensor) -> None:
        self.clock.now += 100

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: int) -> list[dict[str, float]]:
    """The logged rows that concern resources; 8 optimizer steps with 2 batches of 4 images each."""
    clock = Clock()
    monkeypatch.setattr(resources, "time", clock)
    logger = CSVLogger(folder, name="", version="")
    images = DataLoader(torch.zeros(64, 2), batch_size=4)
    trainer = Trainer(
        max_steps=8,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=logger,
        callbacks=[ResourceMonitor(total_batch=8)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(Toy(clock), images, DataLoader(torch.zeros(4, 2)))
    with Path(logger.experiment.metrics_file_path).open() as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in rows if "resources/seconds_per_step" in row]


def test_a_window_is_counted_in_optimizer_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = fit(tmp_path, monkeypatch, log_every_n_steps=3)
    assert [row["step"] for row in rows] == [2, 5]  # after the third and the sixth step
    for row in rows:
        assert row["resources/seconds_per_step"] == pytest.approx(2)
        assert row["resources/images_per_second"] == pytest.approx(4)
        assert "loss" in row


def test_the_time_of_validation_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = fit(tmp_path, monkeypatch, log_every_n_steps=4, val_check_interval=2)
    assert [row["resources/seconds_per_step"] for row in rows] == pytest.approx([2, 2])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the operating system does not tell")
def test_memory_is_the_resident_peak_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE") / 2**30
    peak = fit(tmp_path, monkeypatch, log_every_n_steps=8)[-1]["resources/memory_gib"]
    assert resident * 0.99 < peak < resident * 50  # a wrong unit is off by 1024
