"""Configuration to objects: what the trainer, its loggers and its metric are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy

from trex2_lightning.config import Config, ConfigError
from trex2_lightning.models.build import build_detector
from trex2_lightning.models.late import LateFusionDetector
from trex2_lightning.training.build import build_datamodule, build_metric
from trex2_lightning.training.trainer import build_evaluator, build_trainer

TinyConfig = Callable[..., Config]
EIGHT_GPUS = ("train.accelerator=gpu", "train.devices=8", "data.batch_size=1", "train.total_batch=8")


def test_the_detector_has_the_configured_sizes(tiny_config: TinyConfig) -> None:
    detector = build_detector(tiny_config("model.transformer.encoder_layers=2", "model.num_queries=7").model)
    assert isinstance(detector, LateFusionDetector)
    assert (len(detector.encoder.layers), len(detector.decoder.layers)) == (2, 2)
    assert detector.selection.content.shape == (7, 32)
    assert detector.neck.level_embedding.shape == (3, 32)


def test_the_trainer_takes_its_numbers_from_the_config(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.max_steps=40", "train.val_every=10", "optim.clip_norm=0.3", "logging.every=5")
    trainer = build_trainer(config)
    assert trainer.max_steps == 40
    assert trainer.accumulate_grad_batches == 2
    assert trainer.val_check_interval == 20  # batches, two a step
    assert trainer.gradient_clip_val == 0.3
    assert trainer.log_every_n_steps == 5  # type: ignore[attr-defined]


def test_the_weights_are_averaged_if_configured(tiny_config: TinyConfig) -> None:
    def averaging(*overrides: str) -> list[WeightAveraging]:
        callbacks = build_trainer(tiny_config(*overrides)).callbacks  # type: ignore[attr-defined]
        return [callback for callback in callbacks if isinstance(callback, WeightAveraging)]

    assert len(averaging("train.ema_decay=0.9")) == 1
    assert averaging("train.ema_decay=0") == []


def test_the_best_and_the_last_weights_are_kept(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    checkpoints = [c for c in build_trainer(config).callbacks if isinstance(c, ModelCheckpoint)]  # type: ignore[attr-defined]
    assert [(c.filename, c.monitor) for c in checkpoints] == [("best", "val/mean_ap"), ("last", None), ("last", None)]
    assert [c._every_n_train_steps for c in checkpoints] == [0, config.train.save_every, 0]  # 0: after evaluations
    assert {Path(str(c.dirpath)) for c in checkpoints} == {(config.folder / "checkpoints").resolve()}


@pytest.mark.parametrize(
    ("override", "find_unused"),
    [("loss.denoising.queries=10", False), ("loss.denoising.queries=0", True), ("train.rhythm.visual=8", True)],
)
def test_several_processes_train_by_ddp(tiny_config: TinyConfig, override: str, find_unused: bool) -> None:
    """Parameters without a gradient in some step: DDP must be told."""
    two = ("train.devices=2", "data.batch_size=2", "train.total_batch=4")
    strategy = build_trainer(tiny_config(*two, override)).strategy
    assert isinstance(strategy, DDPStrategy)
    assert strategy._ddp_kwargs.get("find_unused_parameters", False) is find_unused


@pytest.mark.parametrize("found", [0, 1, 7])
def test_missing_gpus_are_counted(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, found: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    for make in (build_trainer, build_evaluator):
        with pytest.raises(ConfigError, match=f"train.devices=8 GPUs were asked for, but this machine has {found}"):
            make(tiny_config(*EIGHT_GPUS))


def test_wandb_is_offline_by_default_and_lets_runs_fall_side_by_side(tiny_config: TinyConfig) -> None:
    config = tiny_config("logging.wandb=offline", "logging.group=ablation", "logging.tags=[mine]")
    csv, wandb = build_trainer(config).loggers
    assert isinstance(csv, CSVLogger)
    assert isinstance(wandb, WandbLogger)
    settings = wandb._wandb_init
    assert wandb._offline
    assert (settings["group"], settings["job_type"], settings["name"]) == ("ablation", "stage1", "tiny")
    assert settings["tags"] == ["late", "phrase", "coco", "mine"]
    assert settings["config"]["optim"]["lr"] == config.optim.lr


def test_a_run_without_a_group_is_its_own(tiny_config: TinyConfig) -> None:
    _, wandb = build_trainer(tiny_config("logging.wandb=offline")).loggers
    assert isinstance(wandb, WandbLogger)
    assert wandb._wandb_init["group"] == "tiny"


def test_wandb_can_be_off(tiny_config: TinyConfig) -> None:
    [logger] = build_trainer(tiny_config("logging.wandb=disabled")).loggers
    assert isinstance(logger, CSVLogger)


def test_the_metric_knows_the_ground_truth_of_the_split(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    data = build_datamodule(config)
    data.setup("test")
    metric = build_metric(config, data.test_records)
    records = {image.id: image for image in data.test_records.images}
    assert metric._truth.keys() == records.keys() == {1, 2, 3}
    assert all(torch.equal(metric._truth[i].boxes, record.boxes) for i, record in records.items())
