"""What a run has logged on its way and found in the end, read back from its folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from trex2_lightning.errors import InputError

History = dict[str, list[tuple[int, float]]]  # step and value of every figure


def read_history(folder: Path) -> History:
    """Every figure of a run over its optimizer steps, of a resumed run too, whose files follow one another.

    Args:
        folder: of the run; empty without its `csv/`.
    """
    found: dict[str, dict[int, float]] = {}
    for file in sorted((folder / "csv").glob("version_*/metrics.csv"), key=lambda file: int(file.parent.name[8:])):
        with file.open(encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if value and name != "step":
                        found.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in found.items()}


def is_evaluated(folder: Path) -> bool:
    """Whether `evaluation.json` of a run is there, and of its test split."""
    file = folder / "evaluation.json"
    return file.is_file() and read_json(file).get("split", "test") == "test"


def average_precision(folder: Path) -> dict[str, dict[str, float]]:
    """AP of a run on its test split, by what images were asked with and category group.

    Raises:
        InputError: as `evaluation_of`.
    """
    return dict(evaluation_of(folder).get("ap", {}))


def evaluation_of(folder: Path) -> dict[str, Any]:
    """`evaluation.json` of a run on its test split: `{metric: {row: {group: value}}}` and what was evaluated.

    Raises:
        InputError: the run was never evaluated on that split, or the file is broken.
    """
    if not is_evaluated(folder):
        raise InputError(
            f"{folder} was never evaluated on its test split: run trex2 evaluate --ckpt {folder}/checkpoints/best.ckpt"
        )
    return read_json(folder / "evaluation.json")


def read_json(path: Path) -> dict[str, Any]:
    """Raises InputError: the file is broken."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): evaluate the run again") from error
