"""`make ablation-full`: the four cells at full size, both stages, each a command of its own.

Lightning starts the script of a run anew for every further GPU, so each run is a process. What a folder shows as done
is not done again; a training that was stopped goes on.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trex2_lightning.config import Config, from_dict, load, to_dict
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.history import is_evaluated
from trex2_lightning.evaluation.tables import console, flat
from trex2_lightning.studies.fusion_ablation import CELLS
from trex2_lightning.training.checkpoint import read_checkpoint

FULL_SIZE = Path("experiments/full")
STAGES = ("", "_stage2")
TOLD_APART = ("name", "model.fusion", "model.granularity", "train.init_from")  # what is each run's own
# In which a finished run may differ from the one that is asked for, and be it: where things are, how it is watched.
ELSEWHERE = (
    *("format", "output", "data.root", "data.num_workers", "train.init_from", "train.max_steps", "logging.", "eval."),
)


def compare_full_size(overrides: Sequence[str], *, dry_run: bool) -> None:
    """Train and evaluate every cell, all of stage 1 first, and compare them; or print the commands that do.

    Args:
        overrides: configuration values of every run, devices among them.
        dry_run: print what is left to do, a command a line, in place of doing it.

    Raises:
        InputError: an override would make cells alike or is wrong, several nodes are asked for and `dry_run` is not, or
            a command fails.
    """
    runs = list(_runs(overrides))
    for file, run, _ in runs:
        asked, shipped = flat(to_dict(run), "."), flat(to_dict(load(file, [])), ".")
        for key in TOLD_APART:
            if asked[key] != shipped[key]:
                raise InputError(f"{key}={asked[key]} would be of all cells, which are told apart by it: leave it out")
    config = runs[0][1]
    if config.train.nodes > 1 and not dry_run:
        raise InputError(
            f"train.nodes={config.train.nodes}: one process cannot start a run on several nodes; --dry-run prints the "
            "commands, to be started by SLURM's srun or torchrun one after the other"
        )
    do = _show if dry_run else _call
    for file, run, start in runs:
        for command in _left_to_do(file, run, [*overrides, *start]):
            do(command)
    folders = [str(run.folder) for _, run, _ in runs]
    do([*_script("compare_runs"), *folders, "--output", str(runs[0][1].folder.parent / "comparison")])


def _runs(overrides: Sequence[str]) -> Iterator[tuple[Path, Config, list[str]]]:
    """File, configuration and overrides of its own of every run, in order; all are read before the first one begins."""
    for stage in STAGES:
        for cell in CELLS:
            file = FULL_SIZE / f"{cell}{stage}.yaml"
            config, own = load(file, list(overrides)), []
            if stage:
                start = str(load(FULL_SIZE / f"{cell}.yaml", list(overrides)).folder / "checkpoints" / "last.ckpt")
                if start != config.train.init_from:  # with another `output`
                    own = [f"train.init_from={start}"]
            yield file, config, own


def _left_to_do(file: Path, config: Config, overrides: list[str]) -> list[list[str]]:
    """The commands of a run that have not been run to their end."""
    last = config.folder / "checkpoints" / "last.ckpt"
    train = [*_script("train"), str(file), *(["--resume"] if last.exists() else []), *overrides]
    evaluate = [*_script("evaluate"), "--ckpt", str(last), *overrides]
    if not last.exists():
        return [train, evaluate]
    checkpoint = read_checkpoint(last)
    _check_is_asked_for(config, checkpoint["config"])
    if checkpoint["global_step"] < config.train.max_steps:
        return [train, evaluate]
    found = config.folder / "evaluation.json"
    if is_evaluated(config.folder) and found.stat().st_mtime >= last.stat().st_mtime:
        return []
    return [evaluate]


def _check_is_asked_for(config: Config, trained: dict[str, Any]) -> None:
    """Raises InputError: the folder has a run with other settings."""
    asked, before = flat(to_dict(config), "."), flat(to_dict(from_dict(trained)), ".")
    differ = [key for key in asked if asked[key] != before.get(key) and not key.startswith(ELSEWHERE)]
    if differ:
        told = ", ".join(f"{key}={before.get(key)}" for key in differ[:5])
        raise InputError(
            f"{config.folder} has a run of other settings ({told}), which would be taken for the one that is "
            "asked for: ask for these, or give another output="
        )


def _script(name: str) -> list[str]:
    return [sys.executable, f"scripts/{name}.py"]


def _show(command: list[str]) -> None:
    console.print(shlex.join(command), soft_wrap=True, highlight=False, markup=False)


def _call(command: list[str]) -> None:
    """Raises InputError: the command fails."""
    _show(command)
    status = subprocess.run(command).returncode
    if status:
        raise InputError(
            f"scripts/{Path(command[1]).name} ended with status {status}: mend what it says and start this again, "
            "which goes on from there"
        )
