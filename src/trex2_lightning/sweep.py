"""What all ablations share: runs that are not repeated, and mean, spread and verdict over their seeds as Markdown."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from rich.console import Console

from trex2_lightning.errors import InputError

NOISE = 0.01  # a smaller difference in AP is none
console = Console()

Run = TypeVar("Run")
Runs = Mapping[str, Mapping[int, Run]]  # by row and seed
Difference = Callable[[Runs[Run], int], float]  # of one seed's runs


class Trend(NamedTuple, Generic[Run]):
    """A difference that a claim promises."""

    claim: str
    difference: Difference[Run]  # positive: it holds
    noise: float = NOISE


def finish(folder: Path, file: Path, overrides: Sequence[str]) -> None:
    """Train and evaluate the run of an experiment file unless that is done; a run that was broken off goes on."""
    last = folder / "checkpoints" / "last.ckpt"
    if not is_evaluated(folder):
        script("train", folder, str(file), *(["--resume"] if last.exists() else []), *overrides)
        script("evaluate", folder, "--ckpt", str(last))
    console.print(f"{folder}", soft_wrap=True)


def script(name: str, folder: Path, *arguments: str) -> None:
    """Run a script on one thread; what it prints goes to a file beside the run."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(f".{name}.log")
    with log.open("w") as stream:
        command = [sys.executable, str(Path("scripts", f"{name}.py")), *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment).returncode
    if status:
        raise InputError(f"{' '.join(command)} ended with status {status}: see {log}")


def folders(parent: Path, row: str) -> dict[int, Path]:
    """The finished runs of a row by seed, whichever call made them."""
    files = sorted(parent.glob(f"{row}_[0-9]*/evaluation.json"))
    evaluated = [file.parent for file in files if is_evaluated(file.parent)]
    return {int(folder.name.removeprefix(f"{row}_")): folder for folder in evaluated}


def is_evaluated(folder: Path) -> bool:
    """Whether `evaluation.json` of a run is there, and of its test split."""
    file = folder / "evaluation.json"
    return file.is_file() and read_json(file).get("split", "test") == "test"


def average_precision(folder: Path) -> dict[str, dict[str, float]]:
    """AP of a run on its test split, by what images were asked with and category group.

    Raises:
        InputError: the run was never evaluated on that split, or the file is broken.
    """
    if not is_evaluated(folder):
        raise InputError(
            f"{folder} was never evaluated on its test split: run python scripts/evaluate.py "
            f"--ckpt {folder}/checkpoints/best.ckpt"
        )
    return dict(read_json(folder / "evaluation.json").get("ap", {}))


def read_json(path: Path) -> dict[str, Any]:
    """Raises InputError: the file is broken."""
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): evaluate the run again") from error


def verdict(trend: Trend[Run], runs: Runs[Run]) -> str:
    """Reproduced if every seed has the difference, contrary if every seed has the opposite, each beyond noise."""
    differences = []
    for seed in sorted({seed for found in runs.values() for seed in found}):
        try:
            differences.append(trend.difference(runs, seed))
        except KeyError:  # not all of the trend's runs were made with this seed
            continue
    if not differences:
        return f"{trend.claim}: no runs."
    found = "not shown in every seed"
    if min(differences) > trend.noise:
        found = "reproduced"
    elif max(differences) < -trend.noise:
        found = "the contrary is found"
    elif max(map(abs, differences)) <= trend.noise:
        found = f"no difference beyond {trend.noise}"
    elif min(differences) < -trend.noise and max(differences) > trend.noise:
        found = "not shown, the seeds disagree"
    listed = ", ".join(f"{difference:+.3f}" for difference in differences)
    return f"{trend.claim}: **{found}** ({listed})."


def mean_and_spread(values: Iterable[float], digits: int = 3) -> str:
    """The mean and, of several values, their standard deviation; nothing of none."""
    values = list(values)
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
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
