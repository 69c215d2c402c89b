"""Figures as tables, on the terminal and in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console()


def mean_and_spread(values: Iterable[float], digits: int = 3) -> str:
    """The mean and, of several values, their standard deviation; nothing of none."""
    values = list(values)
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])


def flat(values: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a/b": 1}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}{separator}{key}": inner for key, inner in flat(value, separator).items()}
        else:
            found[name] = value
    return found


def ap_table(blocks: dict[str, dict[str, dict[str, float]]], row: str = "prompt") -> Table:
    """`{metric: {row: {group: value}}}` as a block for every metric, with a column for every group.

    Eight columns have room on a terminal of 80 characters.
    """
    groups = list(dict.fromkeys(group for rows in blocks.values() for values in rows.values() for group in values))
    table = Table(box=None, padding=(0, 2, 0, 0))
    width = max([len(row), *(len(name) for rows in blocks.values() for name in rows)])
    table.add_column(row, no_wrap=True, min_width=width, max_width=width)
    for group in groups:
        table.add_column(group, justify="right", no_wrap=True)
    for metric, rows in blocks.items():
        table.add_row(Text(metric.replace("_", " "), "bold", no_wrap=False))  # a long one takes no room of the figures
        for name, values in rows.items():
            table.add_row(name, *(f"{values[group]:.3f}" if group in values else "-" for group in groups))
    return table
