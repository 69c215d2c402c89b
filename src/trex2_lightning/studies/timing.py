"""Peer and ours in turn in one process: the fastest run of each counts, and only their ratio is worth quoting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from trex2_lightning.studies import index_speed

HEIGHT, WIDTH = 800, 1066  # pixels


class Row(NamedTuple):
    """A line of the page; a ratio above 1 is in our favour."""

    what: str
    peer: float | None  # seconds
    ours: float | None
    figure: str  # the ratio, or a difference
    bar: str = ""


class Setting(NamedTuple):
    """How large everything is; tests make it small."""

    height: int = HEIGHT
    width: int = WIDTH
    few: int = 80  # names
    many: int = 1203
    repeats: int = 3
    # Settings of the reference that differ from Grounding DINO with Swin-T, as its config.json has them.
    reference: Mapping[str, Any] = MappingProxyType({})
    images: int = index_speed.IMAGES
    boxes: int = index_speed.BOXES


def fastest(repeats: int, *sides: Callable[[], object]) -> list[float]:
    """Seconds of each side's fastest run; they take turns."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for side, taken in zip(sides, times, strict=True):
            start = perf_counter()
            side()
            taken.append(perf_counter() - start)
    return list(map(min, times))


def ratio(peer: float, ours: float) -> str:
    """How many times as much the peer takes."""
    return f"{peer / ours:.2f}"


def difference(one: Tensor, two: Tensor) -> float:
    """The largest, of any number."""
    return float((one - two).abs().max())


def level_shapes(setting: Setting) -> list[tuple[int, int]]:
    """Of the four levels, strides 8 to 64."""
    return [(-(-setting.height // stride), -(-setting.width // stride)) for stride in (8, 16, 32, 64)]
