"""From what a preflight has measured to what it says: a line for each question, and what to change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trex2_lightning.config import Config
from trex2_lightning.training.callbacks.preflight_watch import BatchSize, DeviceMemory, PreflightWatch
from trex2_lightning.training.callbacks.resources import GIB
from trex2_lightning.training.loss_parts import DETECTION

MOST_WAITING = 0.1  # share of a step that the loader may cost
TIGHT = 0.05  # share of the memory that should be left
DAY, HOUR = 86_400, 3_600  # seconds


class RankFigures(NamedTuple):
    """What each rank has measured; times in seconds."""

    step: dict[str, float]  # of an optimizer step by its kind, without waiting for the loader
    loader: float  # of a batch
    evaluation: float  # of a batch
    memory: DeviceMemory


class DiskSpace(NamedTuple):
    """Bytes."""

    best: int  # of best.ckpt
    last: int  # of last.ckpt, and of the one before it
    free: int  # at `output`


class RunFigures(NamedTuple):
    """What a preflight has measured on all ranks."""

    watch: PreflightWatch
    ranks: Sequence[RankFigures]
    checkpoint: str  # what is wrong with it
    disk: DiskSpace
    num_val_images: int
    num_cores: int  # of this machine


@dataclass
class PreflightReport:
    """What is told: lines of what was found, then of what will not do."""

    lines: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    failed: bool = False  # also where another rank tells why
    waited_for: bool = False  # ranks may wait for this one in a collective, so that its end must not wait for them

    def __post_init__(self) -> None:
        self.failed |= bool(self.problems)


class Speed(NamedTuple):
    """Seconds, of the slowest rank."""

    step: float  # an optimizer step
    waiting: float  # of it, for the loader
    batch: float  # of it, without the loader
    loader: float  # a batch


def judge(config: Config, found: RunFigures) -> PreflightReport:
    """The report of a run whose steps, evaluation and checkpoints came to their end."""
    speed = _speed(config, found.ranks)
    parts = [
        _memory(config, found),
        _images(config, found, speed),
        _loading(config, found, speed),
        _length(config, found, speed),
        _gradients(found),
        _loss_parts(config, found),
        _checkpoint(found),
        _disk(config, found.disk),
    ]
    problems = tuple(problem for _, problem in parts if problem)
    verdict = "will not do" if problems else "ready: it fits, is fed and has room"
    head = f"{config.name}: {_steps(found.watch)}"
    return PreflightReport((head, *(line for line, _ in parts), f"verdict      {verdict}"), problems)


def does_not_fit(config: Config, batch: BatchSize | None) -> PreflightReport:
    """The report of a run that had no memory left.

    Args:
        config: the run.
        batch: that it was at; None: none yet.
    """
    if batch is None:
        return PreflightReport(problems=("memory: does not fit, not even the model without a batch: a smaller model",))
    if batch.kind == "evaluation":
        way = f"eval.batch_size={max(1, config.eval.batch_size // 2)}"
    else:
        ways = [_smaller_batch(config), "train.checkpoint_activations=true", "a smaller data.max_size="]
        if config.train.checkpoint_activations:
            ways.remove("train.checkpoint_activations=true")
        way = ", or ".join(filter(None, ways))
    return PreflightReport(problems=(f"memory: does not fit ({batch}): {way}",))


def no_room(config: Config, free: int) -> PreflightReport:
    """The report of a run that could not write a checkpoint.

    Args:
        config: the run.
        free: bytes at `output`.
    """
    way = f"output=FOLDER on a larger disk than {config.output}, which has {_gib(free)} free"
    return PreflightReport(problems=(f"disk: too small to write a checkpoint: {way}",))


def worker_killed(config: Config) -> PreflightReport:
    """The report of a run one of whose loading processes was killed."""
    way = "more shared memory (of a container: --shm-size), or fewer data.num_workers="
    problem = f"loader: one of data.num_workers={config.data.num_workers} processes was killed, out of memory: {way}"
    return PreflightReport(problems=(problem,))


def _steps(watch: PreflightWatch) -> str:
    kinds = " and ".join(f"{count} {kind}" for kind, count in watch.kinds.items())
    return f"{kinds} steps, of which the first {watch.num_widest} the widest"


def _memory(config: Config, found: RunFigures) -> tuple[str, str]:
    """Ranks on the CPU share the memory of their machine."""
    worst = max((rank.memory for rank in found.ranks), key=lambda memory: memory.peak + memory.elsewhere)
    on_gpu = config.train.accelerator == "gpu"
    peak = worst.peak if on_gpu else worst.peak * config.train.devices
    left = worst.total - worst.elsewhere - peak
    tight = f"; tight: less than {TIGHT:.0%} is left" if left < TIGHT * worst.total else ""
    of = "the card's" if on_gpu else "the machine's"
    others = f", {_gib(worst.elsewhere)} taken by others and the driver" if worst.elsewhere else ""
    return (
        f"memory       {_gib(peak)} at the peak of {of} {_gib(worst.total)}{others}, {_gib(max(left, 0))} left{tight} "
        f"({found.watch.largest})"
    ), ""


def _images(config: Config, found: RunFigures, speed: Speed) -> tuple[str, str]:
    kinds = ", ".join(f"{kind} {seconds:.3g} s" for kind, seconds in _slowest(found.ranks).items())
    return f"speed        {config.train.total_batch / speed.step:.3g} images/s, {speed.step:.3g} s a step ({kinds})", ""


def _loading(config: Config, found: RunFigures, speed: Speed) -> tuple[str, str]:
    workers, device = config.data.num_workers, _device(config)
    share = speed.waiting / speed.step
    who = f"the {device} waits {share:.0%} of the time" if speed.waiting else f"the loader waits for the {device}"
    line = (
        f"loader       {speed.loader:.3g} s a batch with data.num_workers={workers}, the {device} takes "
        f"{speed.batch:.3g} s: {who}"
    )
    if share <= MOST_WAITING:
        return line, ""
    wanted = max(workers + 1, math.ceil(1.2 * max(workers, 1) * speed.loader / speed.batch))
    cores = found.num_cores // config.train.devices
    few = f" (this machine has {cores} cores a process: beyond that, a faster disk or smaller files)"
    return line, f"loader: too slow, {who}: data.num_workers={wanted}{few if wanted >= cores else ''}"


def _length(config: Config, found: RunFigures, speed: Speed) -> tuple[str, str]:
    steps, world = config.train.max_steps, config.train.world_size
    seconds = steps * speed.step
    batches = math.ceil(found.num_val_images / (config.eval.batch_size * world))
    evaluations = -(-steps // config.train.val_every)
    validation = evaluations * batches * max(rank.evaluation for rank in found.ranks)
    return (
        f"length       {steps:,} steps: {seconds / DAY:.3g} days, {seconds / HOUR * world:,.3g} {_device(config)}-hours"
        f"; and {evaluations} evaluations of {found.num_val_images:,} images: {validation / HOUR:.2g} hours"
    ), ""


def _gradients(found: RunFigures) -> tuple[str, str]:
    watch = found.watch
    if watch.unequal:
        return "gradients    NOT equal on all ranks", (
            f"gradients: not equal at {watch.unequal}: the ranks would train different models; a fault of a link "
            "between GPUs (NCCL_P2P_DISABLE=1 tells) or of this program: do not train like this"
        )
    if len(found.ranks) == 1:
        return "gradients    of one rank alone, nothing to compare", ""
    return f"gradients    equal on {len(found.ranks)} ranks in {watch.num_compared} steps", ""


def _loss_parts(config: Config, found: RunFigures) -> tuple[str, str]:
    """A part that outweighs detection is told, and no reason not to train: it may be meant."""
    align = config.loss.alignment
    weights = {
        "alignment": ("loss.alignment.weight", align.weight),
        "relation": ("loss.alignment.relation", align.relation),
    }
    kinds, heavy = [], ""
    for kind, norms in found.watch.gradient_norms.items():
        kinds.append(f"{kind} " + ", ".join(f"{part} {norm:.3g}" for part, norm in norms.items()))
        for part, norm in norms.items():
            if norm > norms[DETECTION] > 0:
                share = norms[DETECTION] / norm
                key, weight = weights.get(part, ("", 0.0))
                less = f"at most {key}={share * weight:.2g}" if key else "a smaller weight"
                heavy += f"; WARNING: {part} pulls {1 / share:.2g} times as hard as {DETECTION}: {less}"
    start = config.train.init_from or config.model.init_from or "new weights"
    return f"loss parts   gradients at the start from {start}: {'; '.join(kinds)}{heavy}", ""


def _checkpoint(found: RunFigures) -> tuple[str, str]:
    if found.checkpoint:
        return (
            "checkpoint   NOT read as it was written",
            f"checkpoint: {found.checkpoint}: give another disk by output=",
        )
    return "checkpoint   written, and read back the same; one evaluation batch a rank done", ""


def _disk(config: Config, disk: DiskSpace) -> tuple[str, str]:
    needed = disk.best + 3 * disk.last  # a new one is written beside the two before
    line = (
        f"disk         {_gib(needed)} for best.ckpt, last.ckpt, previous.ckpt and one that is written, "
        f"{_gib(disk.free)} free at output={config.output}"
    )
    if needed > disk.free:
        return (
            line,
            f"disk: too small, {_gib(needed)} wanted and {_gib(disk.free)} free: output=FOLDER on a larger disk",
        )
    return line, ""


def _speed(config: Config, ranks: Sequence[RankFigures]) -> Speed:
    """The kinds of steps by their shares of the rhythm; workers make batches meanwhile, without them a step waits."""
    rhythm, batches = config.train.rhythm, config.accumulate
    loader = max(rank.loader for rank in ranks)
    computing = waiting = 0.0
    for kind, seconds in _slowest(ranks).items():
        share = getattr(rhythm, kind) / (rhythm.visual + rhythm.text)
        ahead = seconds if config.data.num_workers else 0.0
        computing += share * seconds
        waiting += share * max(0.0, batches * loader - ahead)
    return Speed(computing + waiting, waiting, computing / batches, loader)


def _slowest(ranks: Sequence[RankFigures]) -> dict[str, float]:
    return {kind: max(rank.step[kind] for rank in ranks) for kind in ranks[0].step}


def _smaller_batch(config: Config) -> str:
    """The next smaller one that total_batch is a multiple of; "" if there is none."""
    world, total = config.train.world_size, config.train.total_batch
    smaller = (size for size in range(config.data.batch_size - 1, 0, -1) if total % (size * world) == 0)
    size = next(smaller, None)
    return f"data.batch_size={size}" if size else ""


def _device(config: Config) -> str:
    return "GPU" if config.train.accelerator == "gpu" else "CPU"


def _gib(size: float) -> str:
    return f"{size / GIB:.3g} GiB"
