"""Figures over steps or sizes as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure


def curve(
    series: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    ylabel: str,
    xlabel: str = "optimizer steps",
    *,
    logarithmic: bool = False,
) -> None:
    """Write a PNG with one line per series of points x, y; both axes start at 0 unless they are logarithmic."""
    figure = Figure((8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, points in series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if logarithmic:
        axes.set(xscale="log", yscale="log")
    else:
        axes.set(ylim=(0, None), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
