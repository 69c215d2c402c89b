"""What a run has logged on its way, read back from its CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

History = dict[str, list[tuple[int, float]]]  # step and value of every figure


def read_history(folder: Path) -> History:
    """Every figure of a run over its optimizer steps, of a resumed run too, whose files follow one another.

    Args:
        folder: of the run; empty without its `csv/`.
    """
    found: dict[str, dict[int, float]] = {}
    for file in sorted((folder / "csv").glob("version_*/metrics.csv"), key=lambda file: int(file.parent.name[8:])):
        with file.open() as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if value and name != "step":
                        found.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in found.items()}
