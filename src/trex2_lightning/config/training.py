"""Settings of training: optimizer, length, rhythm, devices, and what is logged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trex2_lightning.config.checks import ConfigError, check_not_negative, check_positive, check_share

Precision = Literal["32-true", "bf16-mixed"]
NOT_IN_PROJECT = "/\\#?%:"  # W&B's rule for the name of a project
BEST_BY = ("text", "interactive_box", "interactive_point", "generic")


@dataclass
class OptimConfig:
    """AdamW with one learning rate per part of the model."""

    lr: float = 1e-4  # of all that is new, also behind the towers below: projection and norms
    lr_backbone: float = 1e-5  # of the pretrained backbone
    lr_text: float = 1e-5  # of the text encoder's pretrained tower
    weight_decay: float = 1e-4
    clip_norm: float = 0.1  # of the gradient over all parameters
    warmup_steps: int = 1000  # linear, from zero
    visual_first: int = 0  # steps at the start in which nothing but the visual prompt encoder is trained
    decay_share: float = 0.3  # the last share of the steps, in which the rate falls linearly
    final_share: float = 0.0  # of the rate, at the last step

    def __post_init__(self) -> None:
        check_not_negative("optim", self, "lr", "lr_backbone", "lr_text", "weight_decay", "clip_norm", "warmup_steps")
        check_not_negative("optim", self, "visual_first")
        if not 0 <= self.decay_share <= 1:
            raise ConfigError(f"optim.decay_share={self.decay_share} must lie between 0 and 1")


@dataclass
class RhythmConfig:
    """How many optimizer steps in a row have visual and then text prompts, over and over."""

    visual: int = 0
    text: int = 1

    def __post_init__(self) -> None:
        if min(self.visual, self.text) < 0 or self.visual + self.text == 0:
            raise ConfigError(
                f"train.rhythm.visual={self.visual} and train.rhythm.text={self.text} must not be negative, nor both 0"
            )


@dataclass
class MemoryBankConfig:
    """Visual vectors of recent iterations, which stand for categories that a batch does not hold."""

    size: int = 0  # vectors kept of a category, the last ones; 0: no bank
    negatives: int = 40  # most absent categories that a visual iteration asks for, each with the mean of its vectors
    # Categories of the other `data.sets` and of nameless pictures are asked for too. For sets with few categories of
    # their own, and only where no picture has what another set marks: what is there unmarked would be trained away.
    foreign: bool = False
    positives: float = 0.0  # share of a batch's categories that are asked for by the mean of their vectors instead

    def __post_init__(self) -> None:
        check_share("train.memory_bank", self, "positives")
        if self.size < 0 or self.negatives < 1:
            raise ConfigError(
                f"train.memory_bank.size={self.size} must not be negative, and "
                f"train.memory_bank.negatives={self.negatives} must be at least 1"
            )
        if not self.size and (self.foreign or self.positives):
            raise ConfigError(
                f"train.memory_bank.foreign={self.foreign} and train.memory_bank.positives={self.positives} need a "
                "bank: give train.memory_bank.size=16"
            )


@dataclass
class TrainConfig:
    """How long, on what, and how often it is looked at."""

    max_steps: int = 100_000  # optimizer steps
    total_batch: int = 128  # images per optimizer step over all devices; gradients accumulate to reach it
    accelerator: Literal["gpu", "cpu"] = "gpu"
    devices: int = 8  # processes: GPUs, or CPU ranks
    nodes: int = 1
    precision: Precision = "bf16-mixed"
    float32_matmul_precision: Literal["highest", "high", "medium"] = "high"  # of float32 products on GPUs: TF32
    compile: bool = False  # backbone and layers by torch.compile: some minutes at the start, then faster on GPUs
    checkpoint_activations: bool = False  # backbone and encoder compute theirs again in the backward pass
    ema_decay: float = 0.9998  # exponential moving average of the weights, which is evaluated; 0: none
    val_every: int = 5000  # optimizer steps
    save_every: int = 500  # optimizer steps between two writings of last.ckpt
    calibrate: bool = True  # after the last step: fit what scores mean to val (docs/evaluation.md)
    # The mean of AP on val with these chooses best.ckpt; what a run does not train is left out.
    best_by: list[str] = field(default_factory=lambda: ["text", "interactive_box", "generic"])
    init_from: str = ""  # whose weights the run starts from: checkpoint, folder of a run or by trex2 push, OWNER/NAME
    # Parts of the detector that stay as they are, such as `decoder`: no gradients of their own, evaluation mode.
    frozen: list[str] = field(default_factory=list)
    rhythm: RhythmConfig = field(default_factory=RhythmConfig)
    # A visual iteration asks an image with its own vectors and, for what it lacks, those of the others in its batch
    # (image), or all with the mean over the images of the batch (batch) or of all ranks (world).
    prompt_scope: Literal["image", "batch", "world"] = "image"
    memory_bank: MemoryBankConfig = field(default_factory=MemoryBankConfig)

    def __post_init__(self) -> None:
        check_positive("train", self, "max_steps", "total_batch", "devices", "nodes", "val_every", "save_every")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"train.ema_decay={self.ema_decay} must be at least 0 and less than 1")
        if not self.best_by or not set(self.best_by) <= set(BEST_BY):
            raise ConfigError(f"train.best_by={self.best_by} must be one or more of {', '.join(BEST_BY)}")

    @property
    def world_size(self) -> int:
        return self.devices * self.nodes


@dataclass
class LoggingConfig:
    """Weights & Biases; a CSV is always written."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    project: str = "trex2_lightning"
    group: str = ""  # runs of one group fall side by side; "": the run's name
    job_type: str = "stage1"
    tags: list[str] = field(default_factory=list)
    every: int = 50  # optimizer steps between two points of the curves

    def __post_init__(self) -> None:
        check_positive("logging", self, "every")
        if self.wandb != "disabled":
            self._check_wandb()

    def _check_wandb(self) -> None:
        """What W&B refuses when the run begins, or after days of it, when an offline run is uploaded."""
        if not 1 <= len(self.project) <= 128 or set(self.project) & set(NOT_IN_PROJECT):
            raise ConfigError(
                f"logging.project={self.project!r} must have 1 to 128 characters and none of {' '.join(NOT_IN_PROJECT)}"
                " for W&B, or set logging.wandb=disabled"
            )
        for tag in self.tags:
            if not 1 <= len(tag) <= 64:
                raise ConfigError(
                    f"logging.tags: {tag!r} has {len(tag)} characters, and W&B takes 1 to 64, or set "
                    "logging.wandb=disabled"
                )
