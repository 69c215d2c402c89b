"""Figures over steps or sizes as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

COLORS = 10  # of matplotlib, before the first comes again
DASHES = ("-", "--", ":")


def curve(
    series: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    ylabel: str,
    xlabel: str = "optimizer steps",
    *,
    logarithmic: bool = False,
) -> None:
    """Write a PNG with one line per series of points x, y; both axes start at 0 unless they are logarithmic.

    Up to thirty lines differ in colour or in dashes; the legend stands beside them.
    """
    figure = Figure((8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(series.items()):
        dashes = DASHES[number // COLORS % len(DASHES)]
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", linestyle=dashes, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if logarithmic:
        axes.set(xscale="log", yscale="log")
    else:
        axes.set(ylim=(0, None), xlim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(path)
