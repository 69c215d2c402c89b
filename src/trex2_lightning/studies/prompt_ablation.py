"""`make ablation-prompts`: a fair ladder of ideas for stage 2, each alone on the same base and then some together.

All rows have equal numbers of steps with named exemplars and of images, and start from the same stage 1 of their seed.
A run that is there already is not repeated, so an interrupted ladder goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trex2_lightning.config import load
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.history import evaluation_of
from trex2_lightning.studies.prompt_page import Ladder, LadderRun, prompt_page
from trex2_lightning.studies.prompt_rows import BASE, BASES, ROWS, SETS, STAGE1, row
from trex2_lightning.studies.sweep import evaluate_again, finish, folders, seconds_per_step

SEEDS = {"shapes": (0, 1, 2), "photographs": (0, 1)}
SCREEN = ("train.max_steps=396", "train.val_every=396")  # 44 rounds of the rhythm
SCREENED = "_screen"  # behind the name of a data set, of the folder of such runs


def compare_prompts(
    chosen: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    jobs: int,
    output: Path,
    target: Path,
    overrides: Sequence[str],
    *,
    stage1: Mapping[int, Path],
    screen: bool,
) -> None:
    """Train and evaluate what is not there yet, and write the page, of what is finished even where a run fails.

    Args:
        chosen: rows, as `prompt_rows.row` takes them; a data set takes those that are tried on it.
        sets: configuration values of every run, by data set, one or both of `SETS`.
        seeds: of every row; none: those of `SEEDS`, of a screening the first.
        jobs: runs at the same time, on one thread each.
        output: folder of the runs.
        target: file to write.
        overrides: configuration values of every run.
        stage1: checkpoints of other runs to start from, by seed, where `sets` is one; others are trained.
        screen: a few steps, to choose what is worth a whole run.

    Raises:
        InputError: there is no such row, or a run failed.
    """
    folder = output / "ablation" / "prompts"
    if stage1 and len(sets) > 1:
        raise InputError("a stage 1 is of one data set: choose it by --sets")
    wanted = [
        (name, one, seed)
        for name in sets
        for seed in (seeds or SEEDS[name][: 1 if screen else None])
        for one in chosen
        if name in row(one).sets
    ]

    def train(name: str, run: str, seed: int, file: Path, own: Sequence[str]) -> Path:
        place = folder / run
        always = [f"name=ablation/prompts/{run}", f"output={output}", f"seed={seed}", "train.calibrate=false"]
        finish(place, file, [*always, *own, *sets[name], *overrides])
        return place / "checkpoints" / "last.ckpt"

    def first(name: str, one: str, seed: int) -> None:
        changes = row(one).changes if row(one).of_stage1 else ()
        train(name, _stage1(name, one, seed), seed, STAGE1[name], changes)

    def second(name: str, one: str, seed: int) -> None:
        given = None if row(one).of_stage1 else stage1.get(seed)
        start = given or folder / _stage1(name, one, seed) / "checkpoints" / "last.ckpt"
        run = f"{name}{SCREENED if screen else ''}/{one}_{seed}"
        own = [f"train.init_from={start}", *row(one).changes, *(SCREEN if screen else ())]
        train(name, run, seed, BASES / f"{name}.yaml", own)

    def again(name: str, one: str, seed: int) -> None:
        parent = folder / f"{name}{SCREENED if screen else ''}"
        base = parent / f"{BASE}_{seed}" / "checkpoints" / "last.ckpt"
        evaluate_again(parent / f"{one}_{seed}", base, row(one).changes)

    starts = {_stage1(*run): run for run in wanted if _trains(*run[1:], stage1)}
    try:
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda run: first(*run), starts.values()))
            runs = [pool.submit(second, *run) for run in wanted if not row(run[1]).of_evaluation]
        with ThreadPoolExecutor(jobs) as pool:  # of what was trained before
            runs += [pool.submit(again, *run) for run in wanted if row(run[1]).of_evaluation]
        for done in runs:
            done.result()  # raises what ended it, after all others
    finally:
        target.write_text(prompt_page(finished(folder)), encoding="utf-8")


def finished(folder: Path) -> list[Ladder]:
    """The ladders that have finished runs: of every data set the whole one, then the screening."""
    ladders = []
    for name in SETS:
        for end in ("", SCREENED):
            parent = folder / f"{name}{end}"
            found = {path.parent.name.rpartition("_")[0] for path in parent.glob("*_[0-9]*/evaluation.json")}
            together = sorted(one for one in found if "+" in one and not one.startswith("stage1"))
            rows = {"stage1": _read(folder / name, "stage1")}
            rows |= {one: _read(parent, one) for one in [*ROWS, *together]}
            if rows[BASE]:
                steps = SCREEN[0].split("=")[1] if end else load(BASES / f"{name}.yaml").train.max_steps
                ladders.append(Ladder(name, int(steps), bool(end), {one: runs for one, runs in rows.items() if runs}))
    return ladders


def _read(parent: Path, one: str) -> dict[int, LadderRun]:
    """A row's runs by seed."""
    runs = {}
    for seed, folder in folders(parent, one).items():
        found = evaluation_of(folder)
        tasks = found.get("tasks", {"shapes": found})
        runs[seed] = LadderRun({name: task.get("ap", {}) for name, task in tasks.items()}, seconds_per_step(folder))
    return runs


def _trains(one: str, seed: int, given: Mapping[int, Path]) -> bool:
    """Whether a row needs a stage 1 that is not there."""
    return not row(one).of_evaluation and (row(one).of_stage1 or seed not in given)


def _stage1(name: str, one: str, seed: int) -> str:
    """The run that a row starts from; a screening starts from the same one."""
    return f"{name}/stage1{f'+{one}' if row(one).of_stage1 else ''}_{seed}"
