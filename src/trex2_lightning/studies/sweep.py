"""What all ablations share: runs that are not repeated, and verdicts over their seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Generic, NamedTuple, TypeVar

from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.history import is_evaluated, read_history
from trex2_lightning.evaluation.tables import console

AP_NOISE = 0.01  # a smaller difference in AP is none

Run = TypeVar("Run")
Runs = Mapping[str, Mapping[int, Run]]  # by row and seed
Difference = Callable[[Runs[Run], int], float]  # of one seed's runs


class Trend(NamedTuple, Generic[Run]):
    """A difference that a claim promises."""

    claim: str
    difference: Difference[Run]  # positive: it holds
    noise: float = AP_NOISE


def finish(folder: Path, file: Path, overrides: Sequence[str]) -> None:
    """Train and evaluate the run of an experiment file unless that is done; a run that was broken off goes on."""
    last = folder / "checkpoints" / "last.ckpt"
    if not is_evaluated(folder):
        script("train", folder, str(file), *(["--resume"] if last.exists() else []), *overrides)
        script("evaluate", folder, "--ckpt", str(last))
    console.print(f"{folder}", soft_wrap=True)


def evaluate_again(folder: Path, checkpoint: Path, overrides: Sequence[str]) -> None:
    """Evaluate a checkpoint of another run with other settings, unless that is done."""
    if not is_evaluated(folder):
        script("evaluate", folder, "--ckpt", str(checkpoint), "--output", str(folder), *overrides)
    console.print(f"{folder}", soft_wrap=True)


def script(name: str, folder: Path, *arguments: str) -> None:
    """Run a command on one thread; what it prints goes to a file beside the run."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(f".{name}.log")
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "trex2_lightning", name, *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment).returncode
    if status:
        raise InputError(f"{' '.join(command)} ended with status {status}: see {log}")


def folders(parent: Path, row: str) -> dict[int, Path]:
    """The finished runs of a row by seed, whichever call made them."""
    files = sorted(parent.glob(f"{row}_[0-9]*/evaluation.json"))
    evaluated = [file.parent for file in files if is_evaluated(file.parent)]
    return {int(folder.name.removeprefix(f"{row}_")): folder for folder in evaluated}


def seconds_per_step(folder: Path) -> float | None:
    """The median of what a run has logged."""
    logged = [value for _, value in read_history(folder).get("resources/seconds_per_step", [])]
    return median(logged) if logged else None


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
