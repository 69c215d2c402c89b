"""Configuration to objects: plain functions, and the only place that chooses between classes."""

from __future__ import annotations

import shlex
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from trex2_lightning.callbacks.prediction_table import PredictionTable
from trex2_lightning.callbacks.resources import ResourceMonitor
from trex2_lightning.config import Config, ConfigError, ModelConfig, TrainConfig, to_dict
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.data.records import Records
from trex2_lightning.layers.decoder import Decoder
from trex2_lightning.layers.encoder import DeformableEncoder
from trex2_lightning.losses.criterion import Criterion
from trex2_lightning.memory_bank import MemoryBank
from trex2_lightning.metrics.counting import CountingMetric
from trex2_lightning.metrics.detection import DetectionMetric, Truth
from trex2_lightning.metrics.lvis import Federated, LvisMetric
from trex2_lightning.models.backbone import Backbone, Neck
from trex2_lightning.models.detector import PromptedDetector, QuerySelection
from trex2_lightning.models.early_fusion import EarlyFusionDetector, FusionLayer
from trex2_lightning.models.hub import load_bert, load_detector
from trex2_lightning.models.late_fusion import LateFusionDetector
from trex2_lightning.models.text_encoder import BertEncoder, ClipEncoder, TextEncoder
from trex2_lightning.models.visual_prompt import VisualPromptEncoder
from trex2_lightning.module import DetectionModule

BERTS = ("bert-base-uncased", "custom-bert")
PRETRAINED = ("backbone.model.", "text_encoder.tower.")  # parts that have weights of their own


def detector(config: ModelConfig) -> PromptedDetector:
    """The detector of `model.granularity` and `model.fusion`, with pretrained parts where the config names them.

    Weights of a backbone or a BERT that `model.init_from` has are not read, nor downloaded.
    """
    if not config.init_from:
        return _assembled(config)
    bare = replace(config, backbone=replace(config.backbone, weights=""))
    if config.text.name in BERTS:
        bare = replace(bare, text=replace(config.text, pretrained=""))
    found = _assembled(bare)
    new = load_detector(found, config.init_from).new
    if bare != config and (_lacks_vocabulary(found) or any(name.startswith(PRETRAINED) for name in new)):
        found = _assembled(config)
        load_detector(found, config.init_from)
    return found


def _lacks_vocabulary(found: PromptedDetector) -> bool:
    return isinstance(found.text_encoder, BertEncoder) and not found.text_encoder.tokenizer.pieces


def _assembled(config: ModelConfig) -> PromptedDetector:
    """As `detector`, without `model.init_from`."""
    sizes = config.transformer
    shared = (config.width, sizes.heads, config.num_levels, sizes.points, sizes.ffn, sizes.dropout)
    prior = config.prior if config.similarity == "scaled" else None
    backbone = Backbone(config.backbone)
    parts: dict[str, Any] = {
        "backbone": backbone,
        "neck": Neck(backbone.channels, config.width, config.num_levels),
        "text_encoder": text_encoder(config),
        "visual_encoder": VisualPromptEncoder(
            config.visual, config.width, sizes.heads, config.num_levels, sizes.points, sizes.dropout
        ),
        "encoder": DeformableEncoder(sizes.encoder_layers, *shared),
        "selection": QuerySelection(config.width, config.num_queries, config.anchor_size, prior),
        "decoder": Decoder(
            sizes.decoder_layers,
            *shared,
            context=config.fusion == "early",
            shared_box_head=sizes.shared_box_head,
        ),
        "prior": prior,
    }
    if config.fusion == "late":
        return LateFusionDetector(**parts)
    fusion = (config.width, sizes.heads, sizes.ffn, sizes.dropout, sizes.fusion_drop_path)
    fusions = nn.ModuleList(FusionLayer(*fusion) for _ in range(sizes.encoder_layers))
    return EarlyFusionDetector(fusions, config.max_tokens, **parts)


def text_encoder(config: ModelConfig) -> TextEncoder:
    """The text encoder of `model.text` and `model.granularity`, with pretrained weights where the config names them."""
    text = config.text
    if text.name not in BERTS:
        return ClipEncoder(text, config.width, config.granularity)
    encoder = BertEncoder(text, config.width, config.granularity)
    if text.pretrained:
        load_bert(encoder, text.pretrained)
    return encoder


def module(config: Config) -> DetectionModule:
    """The detector with its losses and optimizer; a prompt encoder that no iteration trains is frozen."""
    model = detector(config.model)
    rhythm, alignment = config.train.rhythm, config.loss.alignment
    model.train_prompts(text=bool(rhythm.text or alignment.weight), visual=bool(rhythm.visual))
    return DetectionModule(
        model,
        Criterion(config.loss),
        config.optim,
        config.loss.denoising,
        to_dict(config),
        seed=config.seed,
        max_detections=config.eval.max_detections,
        prompt_scope=config.train.prompt_scope,
        memory_bank=MemoryBank(config.train.memory_bank) if config.train.memory_bank.size else None,
        visual_trained=bool(rhythm.visual),
    )


def datamodule(config: Config) -> DetectionDataModule:
    """The data of the run; the length of the training stream is that of the run."""
    return DetectionDataModule(
        config.data,
        seed=config.seed,
        total_steps=config.train.max_steps,
        accumulate=config.accumulate,
        rhythm=config.train.rhythm,
        eval_batch_size=config.eval.batch_size,
    )


def metric(config: Config, records: Records, threshold: float | None = None) -> DetectionMetric:
    """The figures of `eval.metric` against the ground truth of one split.

    Args:
        config: the run.
        records: the split.
        threshold: score from which detections are counted; None: the best one for the split itself.

    Raises:
        ConfigError: the split lacks what `eval.metric` needs.
    """
    truth = {image.id: Truth(image.boxes, image.labels, image.crowd, image.area) for image in records.images}
    if config.eval.metric == "lvis":
        federated = {
            image.id: Federated(image.judged.tolist(), sorted({*image.labels.tolist()} - {*image.judged.tolist()}))
            for image in records.images
            if image.judged is not None
        }
        if len(federated) < len(truth):
            raise ConfigError(f"eval.metric=lvis needs data.format=lvis, but it is {config.data.format}")
        return LvisMetric(truth, federated, records.names, records.groups)
    options: dict[str, Any] = {"backend": config.eval.backend, "max_detections": config.eval.max_detections}
    if config.eval.metric == "coco":
        return DetectionMetric(truth, records.names, records.groups, **options)
    counts = {i.id: i.num_objects for i in records.images if i.num_objects is not None}
    if len(counts) < len(truth):
        raise ConfigError(f"eval.metric=counting needs data.format=fsc147 or fscd_lvis, but it is {config.data.format}")
    return CountingMetric(truth, counts, records.names, records.groups, threshold=threshold, **options)


def trainer(config: Config) -> L.Trainer:
    """The Lightning trainer of a training run, which writes to `config.folder`.

    Raises:
        ConfigError: the machine has fewer devices than asked for, or nothing joins the nodes.
    """
    train = config.train
    _check_launcher(train)
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
        callbacks=_callbacks(config),
        use_distributed_sampler=False,
        enable_model_summary=False,
    )


def evaluator(config: Config) -> L.Trainer:
    """The Lightning trainer of an evaluation, which writes nothing by itself."""
    return L.Trainer(
        **_devices(config),
        precision=config.train.precision,
        logger=False,
        enable_checkpointing=False,
        callbacks=[RichProgressBar()],
        use_distributed_sampler=False,
        enable_model_summary=False,
    )


def wandb_logger(config: Config, folder: Path | None = None) -> WandbLogger:
    """A W&B run whose files are written to `folder`, or else to `config.folder`."""
    settings = config.logging
    return WandbLogger(
        name=config.name,
        save_dir=folder or config.folder,
        offline=settings.wandb == "offline",
        project=settings.project,
        group=settings.group or config.name,
        job_type=settings.job_type,
        tags=[config.model.fusion, config.model.granularity, config.data.format, *settings.tags],
        config=to_dict(config),
    )


def _check_launcher(train: TrainConfig) -> None:
    """Lightning joins the nodes under torchrun and SLURM; elsewhere a node would wait for the others for ever."""
    if train.nodes == 1 or TorchElasticEnvironment.detect() or SLURMEnvironment.detect():
        return
    torchrun = Path(sys.executable).with_name("torchrun")
    options = f"--nnodes={train.nodes} --nproc-per-node={train.devices} --rdzv-backend=c10d"
    raise ConfigError(
        f"train.nodes={train.nodes} needs a process on every node. Start it by SLURM's srun, or run this line on each "
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
    strategy = "auto"
    if train.world_size > 1:
        # Plain DDP wants a gradient for every parameter in every step. A text step leaves the visual prompt encoder
        # without, a visual one the text encoder, and no denoising its projection.
        every_step = config.loss.denoising.queries and not train.rhythm.visual
        strategy = "ddp" if every_step else "ddp_find_unused_parameters_true"
    return {
        "accelerator": train.accelerator,
        "devices": train.devices,
        "num_nodes": train.nodes,
        "strategy": strategy,
    }


def _callbacks(config: Config) -> list[Callback]:
    checkpoints: dict[str, Any] = {"dirpath": config.folder / "checkpoints", "enable_version_counter": False}
    callbacks: list[Callback] = [
        RichProgressBar(),
        LearningRateMonitor("step"),
        ResourceMonitor(config.train.total_batch),
        PredictionTable(config.eval.num_pictures),
        ModelCheckpoint(filename="best", monitor="val/ap", mode="max", **checkpoints),
        # `save_last` would skip evaluations that are not the best; the second one sees to the last step.
        ModelCheckpoint(filename="last", every_n_train_steps=config.train.save_every, **checkpoints),
        ModelCheckpoint(filename="last", **checkpoints),
    ]
    if config.train.ema_decay:
        # One kernel for all weights; Lightning's EMAWeightAveraging takes one for each, a tenth of the demo's step.
        average = get_ema_multi_avg_fn(config.train.ema_decay)
        callbacks.insert(0, WeightAveraging(multi_avg_fn=average))
    return callbacks


def _loggers(config: Config) -> list[Logger]:
    """A CSV always (a resumed run adds a file), and W&B unless it is disabled."""
    loggers: list[Logger] = [CSVLogger(config.folder, name="csv")]
    if config.logging.wandb != "disabled":
        loggers.append(wandb_logger(config))
    return loggers
