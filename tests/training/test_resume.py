"""A run that was broken off goes on as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_runs import (
    CrashError,
    assert_same,
    assert_same_end,
    interrupted_and_resumed,
    last_of,
    read,
    recorded_losses,
    rows,
)

from trex2_lightning.config import Config, save
from trex2_lightning.errors import InputError
from trex2_lightning.structures import Batch
from trex2_lightning.training import optim
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule

TinyConfig = Callable[..., Config]


@pytest.mark.parametrize(
    ("stop_at", "resumed_at", "saving"),
    [(8, 8, "train.val_every=2"), (11, 8, "train.val_every=2"), (14, 12, "train={val_every: 4, save_every: 3}")],
    ids=["between two steps", "between the batches of a step", "after a step without an evaluation"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, stop_at: int, resumed_at: int, saving: str
) -> None:
    """Averaged weights, two batches a step, denoising and augmentation are on."""
    settings = ("train.max_steps=8", "data.augment.crop=0.5", "data.augment.color_jitter=0.3", saving)
    whole, broken = tiny_config("name=whole", *settings), tiny_config("name=broken", *settings)
    assert (whole.accumulate, whole.train.ema_decay > 0, whole.loss.denoising.queries > 0) == (2, True, True)
    with monkeypatch.context() as patch:
        losses = recorded_losses(patch)
        train(whole)
    before, after = interrupted_and_resumed(broken, monkeypatch, stop_at, recorded_losses)
    assert list(losses) == list(range(16))
    assert before == {index: loss for index, loss in losses.items() if index < stop_at}
    assert after == {index: loss for index, loss in losses.items() if index >= resumed_at}
    assert_same_end(whole, broken)


@pytest.mark.parametrize("kills", [(13, 13), (12, 13, 13), (7, 13, 14)])
def test_a_run_that_is_killed_again_and_again_equals_one_that_is_not(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, kills: tuple[int, ...]
) -> None:
    """Also right after it has gone on, between the two batches of a step whose number is one to save at."""
    settings = ("train.max_steps=8", "train.save_every=3", "train.val_every=8", "data.augment.crop=0.5")
    whole, broken = tiny_config("name=whole", *settings), tiny_config("name=broken", *settings)
    assert whole.accumulate == 2
    train(whole)
    for number, batch in enumerate(kills):
        with monkeypatch.context() as patch:
            recorded_losses(patch, stop_at=batch)
            with pytest.raises(CrashError):
                train(broken, resume=number > 0)
    train(broken, resume=True)
    assert_same_end(whole, broken)


@pytest.mark.parametrize(("batch", "saved"), [(6, 4), (7, 4)])
def test_a_run_that_a_scheduler_ends_is_saved_when_its_step_is_done(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, batch: int, saved: int
) -> None:
    """What goes on equals a run that was not ended."""
    settings = ("train.max_steps=6", "train.save_every=3", "train.val_every=6")
    whole, broken = tiny_config("name=whole", *settings), tiny_config("name=broken", *settings)
    train(whole)
    step = DetectionModule.training_step

    def ended(self: DetectionModule, example: Batch, batch_idx: int) -> Any:
        if batch_idx == batch:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, example, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "training_step", ended)
        with pytest.raises(SystemExit):
            train(broken)
    assert read(last_of(broken))["global_step"] == saved
    train(broken, resume=True)
    assert_same_end(whole, broken)


def test_a_run_whose_optimizer_had_other_groups_goes_on_with_its_moments(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As checkpoints up to format 1, with the text encoder's projection in the tower's group; all rates are one.

    Without clipping, for the norm over all gradients is rounded by their order.
    """
    whole, broken = (tiny_config(f"name={name}", "optim.clip_norm=1e9") for name in ("whole", "broken"))
    assert whole.optim.lr == whole.optim.lr_text == whole.optim.lr_backbone
    train(whole)
    with monkeypatch.context() as patch:
        patch.setattr(optim.parted, "__defaults__", (optim._FORMER_TOWERS,))
        recorded_losses(patch, stop_at=6)
        with pytest.raises(CrashError):
            train(broken)
    optimizers = [read(last_of(config))["optimizer_states"][0] for config in (whole, broken)]
    today, before = ([len(group["params"]) for group in optimizer["param_groups"]] for optimizer in optimizers)
    assert today != before
    train(broken, resume=True)
    assert_same_end(whole, broken)


def test_a_crash_in_an_evaluation_does_no_harm(
    tiny_coco: Path, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The averaged weights are in the place of the trained ones then: saving them would ruin the run."""
    whole, broken = tiny_config("name=whole"), tiny_config("name=broken")
    train(whole)
    picture = tiny_coco / "val" / "1.jpg"
    content = picture.read_bytes()

    end = DetectionModule.on_train_batch_end

    def damaging(self: DetectionModule, *arguments: Any) -> None:
        if self.trainer.global_step == 4:
            picture.write_bytes(content[:100])
        end(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "on_train_batch_end", damaging)
        with pytest.raises(InputError, match=r"1\.jpg"):
            train(broken)
    picture.write_bytes(content)
    train(broken, resume=True)
    assert_same_end(whole, broken)


@pytest.mark.parametrize("broken_off", [2, 4])
def test_an_evaluation_that_was_broken_off_is_made_when_the_run_goes_on(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, broken_off: int
) -> None:
    """Also where its step was saved before, and of the last step; Lightning takes it for done."""
    config = tiny_config("train.save_every=2", "train.val_every=2", "train.max_steps=4")
    seen = []
    end = DetectionModule.on_validation_epoch_end

    def broken(self: DetectionModule) -> None:
        if self.trainer.global_step == broken_off and broken_off not in seen:
            seen.append(broken_off)
            raise CrashError
        end(self)
        seen.append(self.trainer.global_step)

    monkeypatch.setattr(DetectionModule, "on_validation_epoch_end", broken)
    with pytest.raises(CrashError):
        train(config)
    before = [*seen]
    train(config, resume=True)
    evaluated = [step for step in seen[len(before) :] if step]
    assert evaluated == [step for step in (2, 4) if step >= broken_off]
    assert read(last_of(config))["global_step"] == 4


def test_a_crash_leaves_the_best_checkpoint_as_it_was(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    recorded_losses(monkeypatch, stop_at=6)
    with pytest.raises(CrashError):
        train(config)
    assert read(config.folder / "checkpoints" / "best.ckpt")["global_step"] == 2


def test_resuming_a_finished_run_leaves_it_as_it_is(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.max_steps=2")
    train(config)
    before = read(last_of(config))
    train(config, resume=True)
    assert_same(before, read(last_of(config)))


KILLED = """
import os, signal
from trex2_lightning.commands import train
from trex2_lightning.commands.terminal import command
from trex2_lightning.training.module import DetectionModule

step = DetectionModule.training_step

def killed(self, batch, batch_idx):
    if batch_idx == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)

DetectionModule.training_step = killed
command(train.main)
"""


@pytest.mark.ci
def test_twenty_steps_after_a_real_kill_are_the_same(tiny_config: TinyConfig, tmp_path: Path) -> None:
    settings = ("train.max_steps=26", "train.val_every=6", "data.augment.crop=0.5", "data.num_workers=1")
    whole, broken = tiny_config("name=whole", *settings), tiny_config("name=broken", *settings)
    train(whole)
    save(broken, tmp_path / "broken.yaml")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "broken.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it
    killed = subprocess.run(command, capture_output=True, env=environment, timeout=200)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert read(last_of(broken))["global_step"] == 6
    train(broken, resume=True)
    losses, resumed = ([row["loss"] for row in rows(config) if row["loss"]] for config in (whole, broken))
    assert len(losses) == 26
    assert resumed[-20:] == losses[-20:]
    assert_same_end(whole, broken)


def test_an_existing_run_is_not_overwritten(tiny_config: TinyConfig, checkpoint: Path) -> None:
    written = checkpoint.stat().st_mtime_ns
    with pytest.raises(InputError, match=r"already has a run: add --resume"):
        train(tiny_config("train.max_steps=1"))
    assert checkpoint.stat().st_mtime_ns == written


def test_there_must_be_a_run_to_resume(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    with pytest.raises(InputError, match=r"nothing to resume in .*tiny"):
        train(config, resume=True)
    assert not config.folder.exists()


def test_a_run_of_another_architecture_cannot_be_resumed(tiny_config: TinyConfig, checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"^model\.num_queries=30: a resumed run keeps its 20"):
        train(tiny_config("train.max_steps=2", "model.num_queries=30"), resume=True)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4)])
def test_a_run_goes_on_with_other_batches_of_a_step_where_it_was(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    """As where a GPU is too small, or there are more of them: a step has the same images, in fewer or more batches."""
    settings = ("train.max_steps=6", "train.val_every=2", "train.rhythm={visual: 1, text: 1}")
    step = DetectionModule.training_step
    seen: dict[str, dict[int, list[Any]]] = {}

    def recording(self: DetectionModule, batch: Batch, batch_idx: int) -> torch.Tensor:
        if self.trainer.global_step == 5 and now == "broken":
            raise CrashError
        kind = "text" if batch.prompts.exemplars is None else "visual"
        ids = [(kind, target.image_id) for target in batch.targets]
        seen.setdefault(now, {}).setdefault(self.trainer.global_step, []).extend(ids)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "training_step", recording)
    now = "whole"
    train(tiny_config("name=whole", *settings, f"data.batch_size={before}"))
    now = "broken"
    with pytest.raises(CrashError):
        train(tiny_config("name=broken", *settings, f"data.batch_size={before}"))
    now = "resumed"
    train(tiny_config("name=broken", *settings, f"data.batch_size={after}"), resume=True)
    assert seen["resumed"] == {number: ids for number, ids in seen["whole"].items() if number >= 4}
    assert len(seen["whole"]) == 6
