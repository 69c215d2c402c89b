"""A preflight trains what `train` trains, leaves nothing behind, and tells what will not do."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hanging import finished
from torch import Tensor

from trex2_lightning.commands import preflight as preflight_command
from trex2_lightning.config import Config, save
from trex2_lightning.data.sampling.examples import TrainImages
from trex2_lightning.errors import InputError
from trex2_lightning.structures import Batch
from trex2_lightning.training import preflight as preflight_module
from trex2_lightning.training import preflight_report
from trex2_lightning.training.callbacks import preflight_watch
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.preflight import preflight

ROOT = Path(__file__).parents[2]
STAGE_2 = ("train.rhythm={visual: 2, text: 1}", "train.prompt_scope=world", "train.memory_bank.size=2", "name=a/b")
ONE_BATCH = "train.total_batch=2"  # a step
TIMEOUT = 250  # seconds; a rank that waits for another one would wait for ever
TinyConfig = Callable[..., Config]


class Seen(NamedTuple):
    """A training batch as the model got it."""

    kind: str
    sides: tuple[int, int]
    boxes: int


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    batches: list[Seen] = []
    step = DetectionModule.training_step

    def recorded(module: DetectionModule, batch: Batch, number: int) -> Tensor:
        kind = "text" if batch.prompts.exemplars is None else batch.prompts.exemplars.kind
        height, width = batch.images.pixels.shape[-2:]
        batches.append(Seen(kind, (height, width), max(len(target.labels) for target in batch.targets)))
        return step(module, batch, number)

    monkeypatch.setattr(DetectionModule, "training_step", recorded)
    return batches


def left_in(config: Config) -> list[Path]:
    return [path for path in Path(config.output).rglob("*") if path.is_file() or path.name.startswith(".")]


def test_the_widest_steps_come_first_and_nothing_is_left(
    tiny_config: TinyConfig, seen: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_report, "MOST_WAITING", 1.0)  # other work on this machine slows the loader
    config = tiny_config(*STAGE_2, "data.train_sizes=[48, 64]", "data.num_workers=1", "train.max_steps=100")
    before = config.train.max_steps
    report = preflight(config, 4)
    assert report.problems == ()
    assert "verdict      ready: it fits, is fed and has room" in report.lines
    assert config.train.max_steps == before
    assert left_in(config) == []

    widest, ordinary = seen[:8], seen[8:16]  # steps of two batches
    assert len(seen) == 16
    assert {batch.kind for batch in widest} == {"text", "box", "point"}
    assert {batch.sides for batch in widest} == {(96, 96)}, "landscape and portrait, at most twice as long as wide"
    assert min(batch.boxes for batch in widest[2:]) == 3, "the most of an image"
    assert {batch.kind == "text" for batch in ordinary} == {True, False}
    assert {batch.sides for batch in ordinary} != {(96, 96)}
    told = "\n".join(report.lines)
    assert "(2 images padded to 96 x 96, up to 3 boxes, " in told
    assert "(visual " in told
    assert "text " in told
    assert "evaluations of 3 images" in told
    assert re.search(r"loss parts .*: visual detection [\d.]+, alignment [\d.]+; text detection [\d.]+", told), told


def test_a_run_of_that_name_is_left_alone(tiny_config: TinyConfig, seen: list[Seen]) -> None:
    config = tiny_config(ONE_BATCH)
    (config.folder / "checkpoints").mkdir(parents=True)
    (config.folder / "checkpoints" / "last.ckpt").write_text("of a run")
    preflight(config, 2)
    assert left_in(config) == [config.folder / "checkpoints" / "last.ckpt"]
    assert [batch.kind for batch in seen] == ["text"] * 4


def test_every_fault_is_told_with_status_1(
    tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slow loader, a full disk, another rank's gradients, and a checkpoint that is read otherwise."""
    config = tiny_config(ONE_BATCH)
    save(config, tmp_path / "experiment.yaml")
    get, read = TrainImages.__getitem__, preflight_module.load_checkpoint

    def slow(*arguments: Any) -> Any:
        time.sleep(0.5)
        return get(*arguments)

    def altered(path: Path) -> tuple[Config, DetectionModule]:
        loaded, module = read(path)
        module.detector.selection.content.data += 1
        return loaded, module

    def another(sums: dict[str, int]) -> list[dict[str, int]]:
        return [sums, sums | {"detector.selection.content": 1}]

    monkeypatch.setattr(TrainImages, "__getitem__", slow)
    monkeypatch.setattr(preflight_module, "_free", lambda _: 1000)
    monkeypatch.setattr(preflight_module, "load_checkpoint", altered)
    monkeypatch.setattr(preflight_watch, "from_every_rank", another)
    with pytest.raises(SystemExit) as end:
        preflight_command.main([str(tmp_path / "experiment.yaml"), "--steps", "2"])
    assert end.value.code == 1
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("will not do: ")]
    for expected in (
        "loader: too slow, the CPU waits ",
        "gradients: not equal at step 1 (text), ranks 0 and 1: 1 of ",
        "checkpoint: 1 tensors read from the checkpoint differ, such as detector.selection.content",
        "disk: too small, ",
    ):
        assert [expected in line for line in problems].count(True) == 1, expected
    assert len(problems) == 4
    assert "data.num_workers=" in problems[0]
    assert left_in(config) == []


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
FULL = OSError(errno.ENOSPC, "No space left on device")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize(
    ("method", "error", "told"),
    [
        (
            "training_step",
            OUT_OF_MEMORY,
            r"memory: does not fit \(2 images padded to .*boxes, text\): data.batch_size=1",
        ),
        ("training_step", CUBLAS, "memory: does not fit .*: data.batch_size=1"),
        ("validation_step", OUT_OF_MEMORY, "memory: does not fit .*, evaluation.*: eval.batch_size=4"),
        ("configure_optimizers", OUT_OF_MEMORY, "not even the model"),
        ("on_save_checkpoint", FULL, "disk: too small to write a checkpoint: "),
    ],
)
def test_no_memory_and_no_disk_are_told_in_one_line(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception, told: str
) -> None:
    def failing(*_: Any) -> None:
        raise error

    monkeypatch.setattr(DetectionModule, method, failing)
    config = tiny_config(ONE_BATCH)
    report = preflight(config, 2)
    assert (report.lines, report.failed) == ((), True)
    [problem] = report.problems
    assert re.search(told, problem), problem
    assert "\n" not in problem
    assert left_in(config) == []


def test_other_errors_are_not_taken_for_these(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(DetectionModule, "training_step", failing)
    config = tiny_config()
    with pytest.raises(RuntimeError, match="a fault of the program"):
        preflight(config, 2)
    assert left_in(config) == []


def test_a_killed_worker_is_told(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(TrainImages, "__getitem__", killed)
    report = preflight(tiny_config("data.num_workers=1"), 2)
    assert "loader: one of data.num_workers=1 processes was killed" in report.problems[0]


def test_what_cannot_begin_is_wrong_input(tiny_config: TinyConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written to .*: give another output="):
        preflight(tiny_config(f"output={tmp_path / 'file' / 'runs'}"), 2)
    with pytest.raises(InputError, match="--steps=1 must be at least 2"):
        preflight(tiny_config(), 1)


def test_make_preflight_tries_what_make_stage2_trains() -> None:
    def started(target: str) -> list[str]:
        call = ["make", "-n", target, "GPUS=16", "CKPT=x.ckpt", "CONFIG=mine.yaml", "ARGS=data.root=x --steps 9"]
        lines = subprocess.run(call, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
        [line] = [line for line in lines if "scripts/" in line]
        return shlex.split(line)[1:]

    script, *arguments = started("preflight")
    assert script == "scripts/preflight.py"
    assert arguments == started("stage2")[1:]


# Two ranks, started as scripts/preflight.py is; FAULT names what goes wrong on the second.
SCRIPT = """
import os, torch
from trex2_lightning.commands import preflight
from trex2_lightning.commands.terminal import command
from trex2_lightning.training.module import DetectionModule

step, second = DetectionModule.training_step, os.environ.get("LOCAL_RANK") == "1"

def on_after_backward(self):
    if second and os.environ["FAULT"] == "gradients":
        self.detector.selection.content.grad += 1

def training_step(self, batch, batch_idx):
    if second and os.environ["FAULT"] == "memory" and batch_idx == 1:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return step(self, batch, batch_idx)

DetectionModule.on_after_backward = on_after_backward
DetectionModule.training_step = training_step
command(preflight.main)
"""


@pytest.mark.ci
@pytest.mark.parametrize("fault", ["", "gradients", "memory"])
def test_two_ranks(tiny_config: TinyConfig, tmp_path: Path, fault: str) -> None:
    config = tiny_config("train.devices=2", "data.batch_size=1", ONE_BATCH, "train.rhythm.visual=1")
    (tmp_path / "preflight.py").write_text(SCRIPT)
    save(config, tmp_path / "two.yaml")
    command = [sys.executable, str(tmp_path / "preflight.py"), str(tmp_path / "two.yaml"), "--steps", "3"]
    done = finished(command, {"OMP_NUM_THREADS": "1", "FAULT": fault, "COLUMNS": "400"}, seconds=TIMEOUT)
    problems = [line for line in done.stdout.splitlines() if line.startswith("will not do: ") and "loader" not in line]
    assert left_in(config) == []
    if not fault:
        assert problems == [], done.stdout[-3000:]
        assert "gradients    equal on 2 ranks in 3 steps" in done.stdout
        assert done.stdout.count("verdict") == 1
        return
    assert done.returncode != 0
    [problem] = problems
    expected = "gradients: not equal at step 1" if fault == "gradients" else "memory: does not fit (1 image padded to"
    assert expected in problem
