"""Configuration to Lightning trainers, their callbacks and loggers."""

from __future__ import annotations

import logging
import shlex
import socket
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from trex2_lightning.config import Config, ConfigError, TrainConfig, to_dict
from trex2_lightning.training.acceleration import Acceleration
from trex2_lightning.training.callbacks.averaging import RampedAveraging
from trex2_lightning.training.callbacks.between_steps import (
    BestSoFar,
    BetweenSteps,
    LastWhenStopped,
    end_at_once,
    hear_sigterm,
)
from trex2_lightning.training.callbacks.prediction_table import PredictionTable
from trex2_lightning.training.callbacks.progress import progress
from trex2_lightning.training.callbacks.resources import ResourceMonitor
from trex2_lightning.training.checkpoint_io import RunCheckpointIO
from trex2_lightning.training.readiness import ReadyDDP


def build_trainer(config: Config, watching: Sequence[Callback] = ()) -> L.Trainer:
    """The Lightning trainer of a training run, which writes to `config.folder`; `watching` are further callbacks.

    Raises:
        ConfigError: the machine has fewer devices than asked for, or nothing joins the nodes.
    """
    train = config.train
    _check_launcher(train)
    _quiet()
    return L.Trainer(
        **_devices(config),
        precision=train.precision,
        max_steps=train.max_steps,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.optim.clip_norm,
        val_check_interval=min(train.val_every, train.max_steps) * config.accumulate,
        check_val_every_n_epoch=None,
        log_every_n_steps=min(config.logging.every, train.max_steps),
        logger=_loggers(config),
        **_shown([*_callbacks(config), *watching]),
        use_distributed_sampler=False,
        enable_model_summary=False,
    )


def build_evaluator(config: Config, *, alone: bool = False) -> L.Trainer:
    """The Lightning trainer of an evaluation, which writes nothing by itself.

    Args:
        config: the run.
        alone: in one process, also where a launcher has started this one beside others.
    """
    _quiet()
    trainer = L.Trainer(
        **_devices(config) | ({"plugins": [LightningEnvironment()]} if alone else {}),
        precision=config.train.precision,
        logger=False,
        enable_checkpointing=False,
        **_shown([progress(), Acceleration(config.train)]),
        use_distributed_sampler=False,
        enable_model_summary=False,
    )
    hear_sigterm(trainer, end_at_once)
    return trainer


def wandb_logger(config: Config, folder: Path | None = None) -> WandbLogger:
    """A W&B run whose files are written to `folder`, or else to `config.folder`."""
    import wandb  # a second, and nothing that a run without it needs

    settings = config.logging
    logger = WandbLogger(
        name=config.name,
        save_dir=folder or config.folder,
        offline=settings.wandb == "offline",
        project=settings.project,
        group=settings.group or config.name,
        job_type=settings.job_type,
        tags=[config.model.fusion, config.model.granularity, config.data.format, *settings.tags],
        config=to_dict(config),
        settings=wandb.Settings(silent=settings.wandb == "offline"),  # docs/wandb.md says how to upload it
    )
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)  # W&B warns of it, even of a None
    return logger


def finish_wandb(loggers: Iterable[Logger]) -> None:
    """End the W&B runs: the next one of the same process would be written into them."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def _quiet() -> None:
    """Leave Lightning's warnings to who listens to the log, and its lines and tips out: the run tells its own.

    Importing it, which commands do late, has set a level, and a handler beside those that are there.
    """
    logging.getLogger("lightning").handlers.clear()
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _check_launcher(train: TrainConfig) -> None:
    """Lightning joins the nodes under torchrun and SLURM; elsewhere a node would wait for the others for ever."""
    if train.nodes == 1 or TorchElasticEnvironment.detect() or SLURMEnvironment.detect():
        return
    torchrun = Path(sys.executable).with_name("torchrun")
    options = f"--nnodes={train.nodes} --nproc-per-node={train.devices} --rdzv-backend=c10d"
    raise ConfigError(
        f"train.nodes={train.nodes} needs a process on every node (train.nodes=1: this machine alone). "
        f"Start it by SLURM's srun, or run this line on each "
        f"of them, of which {socket.gethostname()} must be one: "
        f"{torchrun} {options} --rdzv-endpoint={socket.gethostname()}:29500 {shlex.join(sys.argv)}"
    )


def _devices(config: Config) -> dict[str, Any]:
    train = config.train
    found = torch.cuda.device_count()
    if train.accelerator == "gpu" and found < train.devices:
        raise ConfigError(
            f"train.devices={train.devices} GPUs were asked for, but this machine has {found}: "
            f"GPUS={found} (0 trains on the CPU), or train.accelerator=cpu train.devices=1"
        )
    strategy: str | ReadyDDP = "auto"
    if train.world_size > 1:
        # Plain DDP wants a gradient for every parameter in every step. A text step leaves the visual prompt encoder
        # without, a visual one the text encoder, and no denoising its projection.
        every_step = config.loss.denoising.queries and not train.rhythm.visual
        strategy = ReadyDDP(find_unused_parameters=not every_step)
    return {
        "accelerator": train.accelerator,
        "devices": train.devices,
        "num_nodes": train.nodes,
        "strategy": strategy,
        "plugins": [RunCheckpointIO(), *_slurm()],
        # Under SLURM Lightning loads a checkpoint of its own that lies here over any weights; its default is the folder
        # that the command was called in, which all runs share.
        "default_root_dir": config.folder,
    }


def _slurm() -> list[SLURMEnvironment]:
    """Where SLURM started this process: the nodes joined as Lightning does, without its way to queue a job again.

    That saves from within a signal's handler, where ranks are at different places, the weights may be the averaged ones
    of an evaluation and a batch may be half done. The job files of experiments/slurm/ go on from `last.ckpt` instead.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]


def _shown(callbacks: list[Callback]) -> dict[str, Any]:
    """The callbacks, and that Lightning adds no bar of its own where none of them is one."""
    return {"callbacks": callbacks, "enable_progress_bar": any(isinstance(one, ProgressBar) for one in callbacks)}


def _callbacks(config: Config) -> list[Callback]:
    checkpoints: dict[str, Any] = {"dirpath": config.folder / "checkpoints", "enable_version_counter": False}
    callbacks: list[Callback] = [
        progress(10 if config.train.accelerator == "gpu" else 1),  # the loss it shows is waited for
        Acceleration(config.train),
        LearningRateMonitor("step"),
        ResourceMonitor(config.train.total_batch),
        PredictionTable(),
        BestSoFar(filename="best", monitor="val/mean_ap", mode="max", **checkpoints),
        # `save_last` would skip evaluations that are not the best; the second one sees to the last step.
        BetweenSteps(filename="last", every_n_train_steps=config.train.save_every, **checkpoints),
        BetweenSteps(filename="last", **checkpoints),
        LastWhenStopped(config.folder / "checkpoints" / "last.ckpt"),
    ]
    if config.train.ema_decay:
        callbacks.insert(0, RampedAveraging(config.train.ema_decay))
    return callbacks


def _loggers(config: Config) -> list[Logger]:
    """A CSV always (a resumed run adds a file), and W&B unless it is disabled."""
    loggers: list[Logger] = [CSVLogger(config.folder, name="csv")]
    if config.logging.wandb != "disabled":
        loggers.append(wandb_logger(config))
    return loggers
