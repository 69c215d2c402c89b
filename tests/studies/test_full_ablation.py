"""`make ablation-full`: which commands it prints or runs, in which order, and what it does not do again."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.commands.ablation_full import main as ablation_full
from trex2_lightning.config import Config, load, to_dict
from trex2_lightning.errors import InputError
from trex2_lightning.studies import full_ablation
from trex2_lightning.studies.fusion_ablation import CELLS

ROOT = Path(__file__).parents[2]
RUNS = [f"{cell}{stage}" for stage in ("", "_stage2") for cell in CELLS]
Printed = Callable[..., list[list[str]]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Printed:
    """`printed("key=value", ...)`: the commands of a dry run whose runs are in a folder of the test."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(subprocess, "run", None)  # a dry run starts nothing

    def commands(*overrides: str) -> list[list[str]]:
        capsys.readouterr()
        ablation_full(["--dry-run", f"output={tmp_path}", *overrides])
        return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]

    return commands


def leave_run(config: Config, steps: int, *, evaluated: bool = False) -> None:
    """A folder as a training of that many steps leaves it."""
    last = config.folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True, exist_ok=True)
    content = {"config": to_dict(config), "state_dict": {}, "visual_trained": False, "global_step": steps}
    torch.save(content, last)
    if evaluated:
        (config.folder / "evaluation.json").write_text(json.dumps({"split": "test", "ap": {}}))


def test_stage_1_and_stage_2_of_the_four_cells_are_printed_in_order(printed: Printed, tmp_path: Path) -> None:
    *commands, compare = printed("train.devices=8", "data.root=my data")
    assert [command[0] for command in [*commands, compare]] == [sys.executable] * 17
    assert [Path(command[1]).stem for command in commands] == ["train", "evaluate"] * 8
    shared = [f"output={tmp_path}", "train.devices=8", "data.root=my data"]
    for number, name in enumerate(RUNS):
        train, evaluate = commands[2 * number : 2 * number + 2]
        last = tmp_path / "full" / name / "checkpoints" / "last.ckpt"
        assert train[2:6] == [f"experiments/full/{name}.yaml", *shared]
        assert evaluate[2:7] == ["--ckpt", str(last), *shared]
        stage1 = str(last).replace("_stage2", "")
        assert train[6:] == evaluate[7:] == ([f"train.init_from={stage1}"] if name.endswith("_stage2") else [])
        assert load(train[2], train[3:]).folder == tmp_path / "full" / name
    assert compare[1:-2] == ["scripts/compare_runs.py", *(str(tmp_path / "full" / name) for name in RUNS)]
    assert compare[-2:] == ["--output", str(tmp_path / "full" / "comparison")]


def test_what_is_done_is_left_out_and_what_was_stopped_goes_on(printed: Printed, tmp_path: Path) -> None:
    configs = {name: load(ROOT / f"experiments/full/{name}.yaml", [f"output={tmp_path}"]) for name in RUNS}
    done, trained, older, stopped, *_ = RUNS
    steps = configs[done].train.max_steps
    leave_run(configs[done], steps, evaluated=True)
    leave_run(configs[trained], steps)
    leave_run(configs[older], steps, evaluated=True)
    last = configs[older].folder / "checkpoints" / "last.ckpt"
    os.utime(last, (last.stat().st_mtime + 9, last.stat().st_mtime + 9))  # trained for longer since then
    leave_run(configs[stopped], steps - 1, evaluated=True)

    def of(name: str) -> list[tuple[str, bool]]:
        files = {f"experiments/full/{name}.yaml", str(configs[name].folder / "checkpoints" / "last.ckpt")}
        return [(Path(command[1]).stem, "--resume" in command) for command in commands if files & {*command[2:4]}]

    commands = printed()[:-1]
    assert of(done) == []
    assert of(trained) == of(older) == [("evaluate", False)]
    assert of(stopped) == [("train", True), ("evaluate", False)]
    assert all(of(name) == [("train", False), ("evaluate", False)] for name in RUNS[4:])
    longer = printed(f"train.max_steps={steps + 1}")
    assert [Path(command[1]).stem for command in longer][:3] == ["train", "evaluate", "train"]
    assert "--resume" in longer[0]


def test_a_folder_of_other_settings_is_not_taken_for_what_is_asked_for(printed: Printed, tmp_path: Path) -> None:
    config = load(ROOT / f"experiments/full/{RUNS[0]}.yaml", [f"output={tmp_path}"])
    leave_run(config, config.train.max_steps, evaluated=True)
    printed("data.root=elsewhere", "eval.batch_size=2")
    with pytest.raises(InputError, match=r"has a run of other settings \(seed=0, loss\.denoising\.queries=100\)"):
        printed("seed=1", "loss.denoising.queries=50")


def test_runs_are_written_where_stage_2_looks_for_them_unless_told_otherwise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    ablation_full(["--dry-run"])
    assert "init_from" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.fusion=early", "model.fusion=early would be of all cells, which are told apart by it: leave it out"),
        ("model={fusion: early}", "model.fusion=early would be of all cells"),
        ("train={init_from: mine.ckpt}", "train.init_from=mine.ckpt would be of all cells"),
        ("name=mine", "name=mine would be of all cells"),
        ("train.nodes=2", "--dry-run prints the commands, to be started by SLURM's srun or torchrun"),
        ("train.max_stps=3", "train.max_stps"),
    ],
)
def test_what_cannot_be_is_told_before_the_first_run(
    monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(full_ablation, "_call", None)
    with pytest.raises(InputError) as error:
        ablation_full([override])
    assert message in str(error.value)


def test_a_command_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    called: list[Any] = []

    def failing(command: list[str]) -> subprocess.CompletedProcess[str]:
        called.append(command)
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(subprocess, "run", failing)
    with pytest.raises(InputError, match=r"scripts/train.py ended with status 2: .* start this again"):
        ablation_full([f"output={tmp_path}"])
    assert len(called) == 1
