"""The training command, and that wrong input ends it with status 2 and one readable line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.commands.terminal import TERMINATED
from trex2_lightning.commands.train import main as train_command
from trex2_lightning.training.module import DetectionModule


def test_train_takes_overrides_before_and_after_options(
    call: Callable[..., None], experiment: Path, tmp_path: Path
) -> None:
    call(train_command, experiment, "name=first", "seed=3")
    assert "seed: 3" in (tmp_path / "runs" / "first" / "config.yaml").read_text()
    call(train_command, experiment, "--resume", "name=first", "seed=3")


def test_the_log_says_how_the_total_batch_is_reached(
    call: Callable[..., None], experiment: Path, caplog: pytest.LogCaptureFixture
) -> None:
    call(train_command, experiment)
    assert "total batch 4 = 1 devices x 2 images x 2 accumulated" in caplog.text


# Wrong input


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_stps=3", "train.max_stps: Key 'max_stps' not in 'TrainConfig'. Did you mean: 'max_steps'?"),
        ("train.max_steps=many", "train.max_steps: Value 'many'"),
        ("train.total_batch=3", "train.total_batch=3 is not a multiple of data.batch_size=2"),
        ("model.text.pretrained=openai", "model.text.pretrained cannot go with model.text.name=custom"),
        ("train.max_steps", "'train.max_steps' is not an override: write key=value"),
        ("data.root=nowhere", "nowhere/train.json: no such annotation file; set data.root="),
        ("data.train.images=nowhere", "nowhere: no such image folder"),
        ("train.init_from=nowhere.ckpt", "no checkpoint nowhere.ckpt"),
        ("model.backbone.weights=nowhere.pth", "no weights file nowhere.pth"),
        ("model.num_queries=5000", "model.num_queries=5000 is more than the "),
        ("model.text.context_length=3", "tokens, start and end included, but the text encoder reads 3: shorten it"),
    ],
)
def test_wrong_configuration(error_line: Callable[..., str], experiment: Path, override: str, message: str) -> None:
    assert message in error_line(train_command, experiment, override)


def test_a_missing_experiment(error_line: Callable[..., str]) -> None:
    assert error_line(train_command, "nowhere.yaml") == "no experiment file nowhere.yaml"


def test_more_gpus_than_there_are(error_line: Callable[..., str], experiment: Path, tmp_path: Path) -> None:
    eight_gpus = ("train.accelerator=gpu", "train.devices=99", "data.batch_size=1", "train.total_batch=99")
    message = error_line(train_command, experiment, *eight_gpus)
    assert message.startswith("train.devices=99 GPUs were asked for, but this machine has ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 77}, "annotation 1, image 77: annotation of an unknown image; correct or remove it"),
        ({"category_id": 77}, "annotation 1, category 77: box of an unknown category; correct or remove it"),
    ],
)
def test_broken_references(
    error_line: Callable[..., str], experiment: Path, tiny_coco: Path, change: dict[str, int], message: str
) -> None:
    content = json.loads((tiny_coco / "val.json").read_text())
    content["annotations"][0] |= change
    (tiny_coco / "val.json").write_text(json.dumps(content))
    assert message in error_line(train_command, experiment)


def test_a_checkpoint_of_another_architecture(
    error_line: Callable[..., str], checkpoint: Path, experiment: Path
) -> None:
    overrides = ("name=other", f"train.init_from={checkpoint}", "model.transformer.ffn=128")
    message = error_line(train_command, experiment, *overrides)
    assert "has another architecture than the configured model" in message
    assert "(64, 32) in the file, (128, 32) in the model" in message


def test_an_existing_run_needs_resume(error_line: Callable[..., str], checkpoint: Path, experiment: Path) -> None:
    assert "already has a run: add --resume" in error_line(train_command, experiment)
    assert "nothing to resume" in error_line(train_command, experiment, "--resume", "name=other")


def test_an_option_that_does_not_exist(call: Callable[..., None], experiment: Path) -> None:
    with pytest.raises(SystemExit) as end:
        call(train_command, experiment, "--resum3")
    assert end.value.code == 2


def test_a_run_that_is_stopped_says_what_it_has_and_goes_on(
    call: Callable[..., None], experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(module: DetectionModule, *_: Any) -> None:
        if module.trainer.global_step == stop_at:
            raise KeyboardInterrupt

    steps = ("train.max_steps=3", "train.save_every=1", "train.val_every=3")
    monkeypatch.setattr(DetectionModule, "on_train_batch_start", stop)
    heard = signal.getsignal(signal.SIGINT)  # Lightning goes deaf when it is stopped
    told_at = {
        0: "tiny has no checkpoint yet: start the run again",
        2: "last.ckpt has the first 2 of 3 steps: the same line with --resume goes on",
    }
    for step, told in told_at.items():
        stop_at = step
        with pytest.raises(SystemExit) as end:
            call(train_command, experiment, *steps)
        signal.signal(signal.SIGINT, heard)
        assert end.value.code == 130
        printed = capsys.readouterr()
        assert told in printed.err.splitlines()[-1]
        assert "Traceback" not in printed.err
    stop_at = -1
    call(train_command, experiment, *steps, "--resume")
    assert "written to" in capsys.readouterr().out


@pytest.mark.parametrize(("times", "saved"), [(1, "has the first 2 of 4 steps"), (2, "has no checkpoint yet")])
def test_ctrl_c_ends_a_run_when_its_step_is_saved_and_at_once_when_it_comes_again(
    call: Callable[..., None],
    experiment: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    times: int,
    saved: str,
) -> None:
    def press(module: DetectionModule, _batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:  # the first of two
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(DetectionModule, "on_train_batch_start", press)
    before, heard = signal.getsignal(signal.SIGINT), signal.default_int_handler
    signal.signal(signal.SIGINT, heard)
    with pytest.raises(SystemExit) as end:
        call(train_command, experiment, "train.max_steps=4", "train.save_every=4", "train.val_every=4")
    left = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert end.value.code == 130
    printed = capsys.readouterr()
    assert saved in printed.err.splitlines()[-1]
    assert "Traceback" not in printed.err
    assert left in (heard, signal.SIG_IGN)  # the second is what Lightning leaves


def test_a_run_that_a_scheduler_ends_fails_and_says_what_it_has(
    call: Callable[..., None], experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that `train && next` does not go on."""

    def end(module: DetectionModule, *_: Any) -> None:
        if module.trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(DetectionModule, "on_train_batch_start", end)
    with pytest.raises(SystemExit) as ended:
        call(train_command, experiment, "train.max_steps=4", "train.save_every=4", "train.val_every=4")
    assert ended.value.code == TERMINATED == 143
    printed = capsys.readouterr()
    assert "last.ckpt has the first 2 of 4 steps: the same line with --resume goes on" in printed.err.splitlines()[-1]
    assert printed.out == ""
