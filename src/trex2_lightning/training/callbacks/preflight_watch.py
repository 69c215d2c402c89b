"""What a preflight sees of a training: times, memory, and whether all ranks have the same gradients."""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import median
from typing import Any, NamedTuple, cast

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from trex2_lightning.ops.distributed import from_every_rank
from trex2_lightning.ops.host import main_memory
from trex2_lightning.structures import Batch
from trex2_lightning.training.callbacks.resources import peak_memory
from trex2_lightning.training.loss_parts import gradient_norms
from trex2_lightning.training.module import DetectionModule


class DeviceMemory(NamedTuple):
    """Of the GPU, or of the machine for a rank on the CPU; all in bytes."""

    peak: int  # of this process
    elsewhere: int  # taken by others, and by the driver and the links between GPUs
    total: int


class BatchSize(NamedTuple):
    """What a batch was, for messages."""

    images: int
    height: int  # padded
    width: int
    boxes: int  # most of an image
    kind: str  # visual, text, or evaluation
    data_set: str

    def __str__(self) -> str:
        of = f" of {self.data_set}" if self.data_set else ""
        plural = "s" if self.images > 1 else ""
        return (
            f"{self.images} image{plural} padded to {self.height} x {self.width}, up to {self.boxes} boxes, "
            f"{self.kind}{of}"
        )


class PreflightWatch(Callback):
    """Watches a run whose first steps are the widest, which all ranks' gradients are compared in, and whose others are
    as they come, which are timed. Before them it looks how hard each part of the loss pulls.

    Attributes:
        trainer: of the run, once it has begun.
        batch: the last one that was begun, None before the first.
        largest: of training, the one with most padded pixels and boxes.
        gradient_norms: of each part of the loss, by the kind of the batch, at the weights that the run begins with.
        num_compared: steps whose gradients were compared.
        unequal: where gradients first differed between ranks; "" if nowhere.
        kinds: of the steps, as often as they came.
        memory: at the end of the training.
        evaluation_seconds: of the last evaluation's batches.

    Args:
        num_widest: optimizer steps before those that are timed.
    """

    def __init__(self, num_widest: int) -> None:
        self.num_widest = num_widest
        self.trainer: Trainer | None = None
        self.batch: BatchSize | None = None
        self.largest: BatchSize | None = None
        self.gradient_norms: dict[str, dict[str, float]] = {}
        self.num_compared = 0
        self.unequal = ""
        self.kinds: dict[str, int] = defaultdict(int)
        self.memory = DeviceMemory(0, 0, 0)
        self.evaluation_seconds: list[float] = []
        self._seconds: dict[str, list[float]] = defaultdict(list)  # of timed steps
        self._began = 0.0
        self._step = 0.0  # seconds that this optimizer step has taken so far, without waiting for its batches

    @property
    def step_seconds(self) -> dict[str, float]:
        """Of an optimizer step by its kind, without waiting for the loader; medians."""
        return {kind: median(seconds) for kind, seconds in self._seconds.items()}

    def setup(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self.trainer = trainer

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        for batch in data.first_of_each_kind():
            self.batch = _size(batch, _kind(batch))
            with trainer.precision_plugin.train_step_context():
                moved = move_data_to_device(batch, trainer.strategy.root_device)
                self.gradient_norms[self.batch.kind] = gradient_norms(cast(DetectionModule, module), moved)

    def on_train_batch_start(self, trainer: Trainer, _module: LightningModule, batch: Batch, _number: int) -> None:
        self.batch = _size(batch, _kind(batch))
        self.largest = max(
            self.largest or self.batch, self.batch, key=lambda size: (size.height * size.width, size.boxes)
        )
        _synchronize(trainer)
        self._began = time.perf_counter()

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, _optimizer: Optimizer) -> None:
        if trainer.global_step >= self.num_widest:
            return
        assert self.batch is not None
        ranks = from_every_rank(gradient_sums(module))
        self.num_compared += 1
        for rank, other in enumerate(ranks):
            if other != ranks[0] and not self.unequal:
                names = [name for name in ranks[0] if other[name] != ranks[0][name]]
                self.unequal = (
                    f"step {trainer.global_step + 1} ({self.batch.kind}), ranks 0 and {rank}: {len(names)} of "
                    f"{len(other)} parameters, such as {names[0]}"
                )

    def on_train_batch_end(
        self, trainer: Trainer, _module: LightningModule, _output: Any, _batch: Any, number: int
    ) -> None:
        _synchronize(trainer)
        self._step += time.perf_counter() - self._began
        if (number + 1) % trainer.accumulate_grad_batches:
            return
        assert self.batch is not None
        self.kinds[self.batch.kind] += 1
        if trainer.global_step > self.num_widest:
            self._seconds[self.batch.kind].append(self._step)
        self._step = 0.0

    def on_validation_batch_start(self, _trainer: Trainer, _module: Any, batch: Batch, *_: Any) -> None:
        self.batch = _size(batch, "evaluation")
        self._began = time.perf_counter()

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        _synchronize(trainer)
        if not trainer.sanity_checking:
            self.evaluation_seconds.append(time.perf_counter() - self._began)

    def on_fit_end(self, trainer: Trainer, _module: LightningModule) -> None:
        self.memory = device_memory(trainer.strategy.root_device)


def gradient_sums(module: torch.nn.Module) -> dict[str, int]:
    """By parameter, the sum of its gradient's bits as integers: exact in any order, unlike that of its values. 0: none.

    Two gradients that differ have the same sum by chance alone.
    """
    gradients = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.requires_grad}
    sums = [_bits(gradient) for gradient in gradients.values() if gradient is not None]
    found = iter(torch.stack(sums).tolist() if sums else ())
    return {name: 0 if gradient is None else next(found) for name, gradient in gradients.items()}


def device_memory(device: torch.device) -> DeviceMemory:
    """Now, and at the peak so far."""
    peak = peak_memory(device)
    if device.type != "cuda":
        return DeviceMemory(peak, 0, main_memory())
    free, total = torch.cuda.mem_get_info(device)
    return DeviceMemory(peak, total - free - torch.cuda.memory_reserved(device), total)


def _bits(gradient: Tensor) -> Tensor:
    """() int64."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[gradient.element_size()]
    return gradient.contiguous().view(integer).sum(dtype=torch.int64)


def _kind(batch: Batch) -> str:
    return "text" if batch.prompts.exemplars is None else "visual"


def _size(batch: Batch, kind: str) -> BatchSize:
    images, _, height, width = batch.images.pixels.shape
    boxes = max(len(target.labels) for target in batch.targets)
    return BatchSize(images, height, width, boxes, kind, batch.data_set)


def _synchronize(trainer: Trainer) -> None:
    """So that times are those of the GPU."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
