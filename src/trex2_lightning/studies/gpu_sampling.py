"""Deformable sampling of one encoder layer on a GPU, beside a `grid_sample` for each level and what memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from trex2_lightning.ops.deformable import deformable_sampling, sample_grid
from trex2_lightning.studies.gpu_models import PRECISIONS, Bench, ratio_of
from trex2_lightning.studies.gpu_page import Bar, Section, Task
from trex2_lightning.studies.gpu_timing import Laps, Taken, gibibytes, milliseconds, timed
from trex2_lightning.studies.timing import level_shapes

SAMPLING_TITLE = "Deformable sampling, one layer of the encoder"
HEADS, CHANNELS, POINTS = 8, 32, 4
FORWARD, BOTH = "forward", "forward and backward"
GRID, FUSED, COPY = "`grid_sample` for each level", "`deformable_sampling`", "copy"
BARS = {FORWARD: 19, BOTH: 12}  # times as fast as `grid_sample`, for the largest batch of bfloat16
MOST_MEMORY = 0.9  # GiB


def sampling_section(bench: Bench) -> Section:
    """Rows of both for every batch and type of values."""
    shapes = level_shapes(bench.work.setting)
    tokens = sum(height * width for height, width in shapes)
    return Section(
        SAMPLING_TITLE,
        f"{tokens} queries, {HEADS} heads of {CHANNELS} channels, {len(shapes)} levels of {POINTS} points each; "
        f"{bench.work.in_a_row} calls in a row. Places and weights are float32. `grid_sample` takes bfloat16 values as "
        "float32, for its places would lose their digits. The floor is the time in which inputs and outputs are read "
        "or written once, and for the backward pass inputs and all gradients, at the bandwidth of the copy in the "
        "first row. Memory is the peak, inputs and gradients included.",
        ("what", "values", "batch", "pass", "ms", "floor, ms", "times as fast as `grid_sample`", "peak, GiB"),
        [_copy(bench), *_tasks(bench, shapes)],
    )


def _tasks(bench: Bench, shapes: list[tuple[int, int]]) -> Iterator[Task]:
    for dtype in PRECISIONS:
        for batch in bench.work.batches:
            for done in (FORWARD, BOTH):
                for side, sample in ((GRID, _grid), (FUSED, deformable_sampling)):
                    yield _task(bench, shapes, (side, dtype, str(batch), done), sample)


def _task(
    bench: Bench, shapes: list[tuple[int, int]], what: tuple[str, str, str, str], sample: Callable[..., Tensor]
) -> Task:
    side, dtype, batch, done = what
    own, peer = (SAMPLING_TITLE, *what), (SAMPLING_TITLE, GRID, *what[1:])

    def speedup() -> float | None:
        return None if side == GRID else ratio_of(bench.seconds(*peer), bench.seconds(*own))

    def tell(taken: Taken) -> list[str]:
        bytes_moved = _moved(int(batch), shapes, PRECISIONS[dtype].itemsize, backward=done == BOTH)
        floor = ratio_of(bench.seconds(SAMPLING_TITLE, *_COPIED), 2 * bench.work.copied / bytes_moved)
        faster = speedup()
        told = "" if faster is None else f"{faster:.1f}"
        return [milliseconds(taken.seconds), milliseconds(floor), told, gibibytes(taken.peak)]

    bars: list[Bar] = []
    if side == FUSED and dtype == "bfloat16" and int(batch) == max(bench.work.batches):
        bars.append(Bar(speedup, "times as fast", ">=", BARS[done]))
        bars.append(Bar(lambda: bench.peak(*own), "GiB", "<=", MOST_MEMORY))
    measure = partial(_measure, bench, shapes, int(batch), PRECISIONS[dtype], done, sample)
    return Task(what, measure, tell, tuple(bars))


def _measure(
    bench: Bench,
    shapes: list[tuple[int, int]],
    batch: int,
    dtype: torch.dtype,
    done: str,
    sample: Callable[..., Tensor],
) -> Taken:
    value, locations, weights = sampling_inputs(bench.device, batch, shapes, dtype)

    def forward(_: Laps) -> None:
        with torch.no_grad():
            sample(value, shapes, locations, weights)

    def both(_: Laps) -> None:
        torch.autograd.grad(sample(value, shapes, locations, weights).sum(), [value, locations, weights])

    return timed(forward if done == FORWARD else both, bench.device, bench.work, bench.work.in_a_row)


def sampling_inputs(
    device: torch.device, batch: int, shapes: list[tuple[int, int]], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Values (B, S, h, d), locations (B, S, h, L, P, 2) and weights (B, S, h, L, P), of which gradients are wanted."""
    tokens, generator = sum(height * width for height, width in shapes), torch.Generator(device).manual_seed(0)
    value = torch.randn(batch, tokens, HEADS, CHANNELS, device=device, generator=generator).to(dtype)
    points = (batch, tokens, HEADS, len(shapes), POINTS)
    locations = torch.rand(*points, 2, device=device, generator=generator)
    weights = torch.rand(*points, device=device, generator=generator).flatten(-2).softmax(-1).view(points)
    return value.requires_grad_(), locations.requires_grad_(), weights.requires_grad_()


def _grid(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    return sample_grid(value.float(), shapes, locations, weights).to(value.dtype)


def _moved(batch: int, shapes: list[tuple[int, int]], size: int, *, backward: bool) -> int:
    """Bytes read and written once, where a value takes `size` of them."""
    tokens = batch * sum(height * width for height, width in shapes)
    values = tokens * HEADS * CHANNELS * size
    points = tokens * HEADS * len(shapes) * POINTS * 3 * 4  # x, y and weight
    inputs, outputs = values + points, values
    # Backward reads the inputs and the gradient of the outputs, and writes gradients of the inputs.
    return inputs + outputs + backward * (inputs + outputs + inputs)


_COPIED = (COPY, "", "", "")


def _copy(bench: Bench) -> Task:
    """The bandwidth that the device reaches where nothing but memory counts."""

    def measure() -> Taken:
        source = torch.zeros(bench.work.copied, dtype=torch.uint8, device=bench.device)
        target = torch.empty_like(source)
        return timed(lambda _: target.copy_(source), bench.device, bench.work, bench.work.in_a_row)

    def tell(taken: Taken) -> list[str]:
        moved = 2 * bench.work.copied / taken.seconds
        return [milliseconds(taken.seconds), f"{moved / 1e12:.2g} TB/s", "", gibibytes(taken.peak)]

    return Task(_COPIED, measure, tell)
