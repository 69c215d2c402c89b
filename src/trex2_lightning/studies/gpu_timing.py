"""What a step takes on an accelerator: time between synchronisations, its parts, and the most memory."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import NamedTuple

import torch

from trex2_lightning.studies.timing import Setting

GIBIBYTE = 2**30  # not that of the callbacks, whose module imports Lightning


class Workload(NamedTuple):
    """How much is measured; tests make it small."""

    setting: Setting = Setting(repeats=10)
    batches: tuple[int, ...] = (1, 8)
    trained: int = 8  # images of a training step
    late_names: int = 160  # of a training step without fusion in the encoder
    boxes: int = 10  # marked in an image
    noised: int = 100  # positive noised queries of an image
    copied: int = GIBIBYTE  # bytes whose copy tells the bandwidth
    in_a_row: int = 10  # calls of what takes less than starting and waiting for it does
    warmup: int = 3
    seconds: float = 4.0  # after so many, the least number of runs is enough
    least: int = 3  # runs that are timed, however long one takes


class Taken(NamedTuple):
    """Medians of some runs."""

    seconds: float
    peak: float | None = None  # GiB that tensors took at once, those that were there before too; None: not on a GPU
    parts: Mapping[str, float] = {}  # seconds, in their order


class Laps:
    """Notes when a part of a step ends, on the device's own clock: nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: list[str] = []
        self._marks: list[torch.cuda.Event | float] = [self._now()]

    def __call__(self, part: str) -> None:
        self._names.append(part)
        self._marks.append(self._now())

    def seconds(self) -> dict[str, float]:
        """Of each part; the device has to be done."""
        return {
            name: first.elapsed_time(last) / 1000
            if isinstance(first, torch.cuda.Event) and isinstance(last, torch.cuda.Event)
            else float(last) - float(first)  # type: ignore[arg-type]
            for name, first, last in zip(self._names, self._marks[:-1], self._marks[1:], strict=True)
        }

    def _now(self) -> torch.cuda.Event | float:
        if self._device.type != "cuda":
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def timed(step: Callable[[Laps], object], device: torch.device, work: Workload, calls: int = 1) -> Taken:
    """Run a step until it is warm, then some times more.

    Args:
        step: given `Laps`, on which it may note its parts.
        device: where it runs.
        work: how often.
        calls: steps in a row without waiting.
    """
    for _ in range(work.warmup):
        step(Laps(device))
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times: list[float] = []
    parts: list[dict[str, float]] = []
    while len(times) < work.least or (len(times) < work.setting.repeats and sum(times) * calls < work.seconds):
        start = perf_counter()
        for _ in range(calls):
            step(laps := Laps(device))
        synchronize(device)
        times.append((perf_counter() - start) / calls)
        parts.append(laps.seconds())
    return Taken(
        statistics.median(times),
        torch.cuda.max_memory_allocated(device) / GIBIBYTE if device.type == "cuda" else None,
        {name: statistics.median(part[name] for part in parts) for name in parts[0]},
    )


def synchronize(device: torch.device) -> None:
    """Wait until the device is done; a CPU always is."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Give back what nobody holds any more, so that the next measurement starts from nothing."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def milliseconds(seconds: float | None) -> str:
    """Three digits of them."""
    if seconds is None:
        return ""
    taken = 1000 * seconds
    return f"{taken:.0f}" if taken >= 100 else f"{taken:.3g}"


def gibibytes(amount: float | None) -> str:
    """Nothing where it was not measured."""
    return "" if amount is None else f"{amount:.2f}"
