"""What a person runs before a job of days: a few steps of that very run, and whether it will do."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch.utilities import rank_zero_only

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.ops.distributed import from_every_rank
from trex2_lightning.training.build import build_datamodule
from trex2_lightning.training.callbacks.preflight_watch import PreflightWatch
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.preflight_data import PreflightData
from trex2_lightning.training.preflight_report import (
    DiskSpace,
    PreflightReport,
    RankFigures,
    RunFigures,
    does_not_fit,
    judge,
    no_room,
    worker_killed,
)

LONGEST_LOADING = 60  # seconds that the loader is timed for
MEMORY_ERRORS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # of CUDA, the CPU, cuBLAS and cuDNN
WORKER_ENDS = ("killed by signal", "exited unexpectedly")


def preflight(config: Config, steps: int) -> PreflightReport:
    """Train the widest `steps` of the run, then as many as they come, in a folder of `output` that is removed after.

    Args:
        config: the run.
        steps: optimizer steps, at least 2.

    Returns:
        On rank 0, or on the one that has no memory or no disk left, what is to be told; on others nothing to tell.

    Raises:
        InputError: as `train`, but for its folder.
    """
    if steps < 2:
        raise InputError(f"--steps={steps} must be at least 2")
    trial = shortened(config, 2 * steps)
    data = cast(PreflightData, build_datamodule(trial, PreflightData))
    data.run = config
    watch = PreflightWatch(steps)
    folder = Path(trial.output)
    if _rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output={config.output} cannot be written to ({error.strerror}): give another output="
        ) from error
    try:
        module = train(trial, data=data, watching=[watch])
        figures = RankFigures(
            watch.step_seconds,
            loader_seconds(data, steps * trial.accumulate),
            max(watch.evaluation_seconds),
            watch.memory,
        )
        checkpoint = _read_back(module, trial) if _rank() == 0 else ""
        ranks = from_every_rank(figures)  # no rank leaves before all have written
        if _rank():
            return PreflightReport()
        best, last = ((trial.folder / "checkpoints" / f"{name}.ckpt").stat().st_size for name in ("best", "last"))
        shutil.rmtree(folder)
        disk = DiskSpace(best, last, _free(Path(config.output)))
        return judge(config, RunFigures(watch, ranks, checkpoint, disk, data.num_val_images, num_cores()))
    except (RuntimeError, MemoryError, OSError) as error:
        report = _explained(error, config, watch)
        if report is None:
            raise
        report.waited_for = config.train.world_size > 1
        if not _first_to_tell(folder):
            return PreflightReport(failed=True, waited_for=report.waited_for)
        if watch.trainer is not None and watch.trainer.strategy.launcher is not None:
            kill = watch.trainer.strategy.launcher.kill  # ranks that wait for this one
            kill(getattr(signal, "SIGKILL", signal.SIGTERM))
        return report
    finally:
        if _rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)


def shortened(config: Config, steps: int) -> Config:
    """The run with so many steps, an evaluation at their end, and no W&B, in a folder of its own."""
    trial = deepcopy(config)
    trial.output = str(Path(config.output) / f".preflight-{config.name.replace('/', '-')}")
    trial.train.max_steps = trial.train.val_every = trial.train.save_every = steps
    trial.logging.wandb = "disabled"
    return trial


def loader_seconds(data: PreflightData, count: int) -> float:
    """Of a batch from the loader alone, on all ranks at once, without what its workers have made beforehand."""
    from_every_rank(None)
    batches = iter(data.as_they_come())
    for _ in islice(batches, 1 + 2 * data.config.num_workers):  # PyTorch fetches two batches a worker ahead
        pass
    began, done = time.perf_counter(), 0
    for _ in islice(batches, max(count, 4 * data.config.num_workers)):
        done += 1
        if time.perf_counter() - began > LONGEST_LOADING and done >= data.config.num_workers:
            break
    return (time.perf_counter() - began) / done


def _read_back(module: DetectionModule, trial: Config) -> str:
    """What is wrong with the last checkpoint; "" if nothing."""
    config, loaded = load_checkpoint(trial.folder / "checkpoints" / "last.ckpt")
    weights = module.state_dict()
    differ = [name for name, tensor in loaded.state_dict().items() if not torch.equal(tensor, weights[name].cpu())]
    if config != trial:
        return "the configuration read from the checkpoint is not the one that was written"
    return f"{len(differ)} tensors read from the checkpoint differ, such as {differ[0]}" if differ else ""


def _explained(error: Exception, config: Config, watch: PreflightWatch) -> PreflightReport | None:
    """None: of another kind than memory, disk and killed workers."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_room(config, _free(Path(config.output)))
    said = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in said for text in MEMORY_ERRORS):
        return does_not_fit(config, watch.batch)
    return worker_killed(config) if "DataLoader worker" in said and any(text in said for text in WORKER_ENDS) else None


def _first_to_tell(folder: Path) -> bool:
    """Whether no other rank has met its end before; it removes the folder, as no rank may be left to do it."""
    try:
        (folder / "told").touch(exist_ok=False)
    except OSError:  # there already, or the folder has gone with it
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _rank() -> int:
    """As the launcher says, also before the ranks are joined."""
    return getattr(rank_zero_only, "rank", 0)


def _free(folder: Path) -> int:
    """Bytes."""
    return shutil.disk_usage(folder).free


def num_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else torch.multiprocessing.cpu_count()
