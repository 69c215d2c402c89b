"""A checkpoint is whole or is the one before."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.training.checkpoint_io import RunCheckpointIO
from trex2_lightning.training.fit import train

TinyConfig = Callable[..., Config]


def test_a_checkpoint_needs_no_other_disk(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's own way does."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    config = tiny_config("train.max_steps=1")
    train(config)
    assert sorted(file.name for file in (config.folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_one_that_is_broken_off_leaves_the_one_before(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("train.save_every=1", "train.max_steps=4", "train.val_every=4")
    last = config.folder / "checkpoints" / "last.ckpt"
    save = torch.save

    def broken_off(checkpoint: dict[str, Any], place: Path) -> None:
        save(checkpoint, place)
        if checkpoint["global_step"] == 3:
            place.write_bytes(place.read_bytes()[:1000])
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", broken_off)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(config)
    assert torch.load(last, weights_only=True)["global_step"] == 2
    train(config, resume=True)
    assert torch.load(last, weights_only=True)["global_step"] == 4
    assert torch.load(last.with_name("previous.ckpt"), weights_only=True)["global_step"] == 3
    assert sorted(file.name for file in last.parent.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_the_best_has_weights_alone_the_averaged_ones(tmp_path: Path) -> None:
    checkpoint = {
        "state_dict": {"a": torch.ones(1)},
        "current_model_state": {"a": 2},
        "optimizer_states": [3],
        "config": {},
    }
    writer = RunCheckpointIO()
    for name in ("best", "last"):
        writer.save_checkpoint({"global_step": 5, **checkpoint}, tmp_path / f"{name}.ckpt")
    best, last = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert best == {"global_step": 5, "state_dict": {"a": 1}, "config": {}}
    assert last == {"global_step": 5, **checkpoint}


@pytest.mark.parametrize("linked", [True, False])
def test_the_one_before_the_last_is_of_another_step(
    linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is saved twice at a step that is evaluated; a process that goes on has not written the last one itself."""
    if not linked:
        monkeypatch.setattr(Path, "hardlink_to", unsupported)
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    writer = RunCheckpointIO()
    for step in (1, 1, 2, 2):
        writer.save_checkpoint({"global_step": step}, last)
    assert [torch.load(file, weights_only=True) for file in (previous, last)] == [{"global_step": n} for n in (1, 2)]
    RunCheckpointIO().save_checkpoint({"global_step": 3}, last)
    assert [torch.load(file, weights_only=True) for file in (previous, last)] == [{"global_step": n} for n in (2, 3)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


def unsupported(*_: Any) -> None:
    raise OSError


@pytest.mark.parametrize("left", [b"", None])
def test_a_run_goes_on_from_the_one_before_where_the_last_is_broken(
    tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture, left: bytes | None
) -> None:
    config = tiny_config("train.save_every=1", "train.max_steps=3", "train.val_every=3")
    train(config)
    last = config.folder / "checkpoints" / "last.ckpt"
    whole = torch.load(last, weights_only=True)
    last.write_bytes(last.read_bytes()[:5000] if left is None else left)
    last.with_name("last.ckpt.part").write_bytes(b"half")
    train(config, resume=True)
    assert f"going on from {last.with_name('previous.ckpt')}, the one before it" in caplog.text
    again = torch.load(last, weights_only=True)
    assert again["global_step"] == 3
    assert all(torch.equal(tensor, again["state_dict"][name]) for name, tensor in whole["state_dict"].items())
    assert torch.load(last.with_name("previous.ckpt"), weights_only=True)["global_step"] == 2
    assert not last.with_name("last.ckpt.part").exists()


def test_without_a_whole_one_the_last_is_named(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.max_steps=1")
    train(config)
    last = config.folder / "checkpoints" / "last.ckpt"
    last.write_bytes(b"")
    with pytest.raises(InputError, match=rf"^{last} is not a checkpoint: it is damaged"):
        train(config, resume=True)


def test_a_full_disk_is_one_line_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, place = RunCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"global_step": 1, "state_dict": {}}, place)
    save = torch.save

    def full(checkpoint: dict[str, Any], file: Path) -> None:
        save(checkpoint, file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    message = rf"^{place}: cannot be written \(.*No space left on device.*\); what was there before is kept: make room"
    with pytest.raises(InputError, match=message):
        writer.save_checkpoint({"global_step": 2, "state_dict": {}}, place)
    assert torch.load(place, weights_only=True)["global_step"] == 1
    assert not place.with_name("last.ckpt.part").exists()


def test_a_full_disk_is_told_and_left_with_room_for_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch tells of another error than the system's, and has the half of the file open as long as it is told."""
    opened = []

    def full(_: object, file: Path) -> None:
        opened.append(file.open("wb"))
        opened[0].write(bytes(5000))
        opened[0].flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
        raise RuntimeError("unexpected pos 128 vs 64")

    monkeypatch.setattr(torch, "save", full)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(InputError, match=r"File too large\); there was none before: make room, and start it again"):
            RunCheckpointIO().save_checkpoint({"global_step": 2, "state_dict": {}}, tmp_path / "best.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.fstat(opened[0].fileno()).st_size == 0
    assert not [*tmp_path.iterdir()]


def test_weights_that_are_no_numbers_replace_nothing(tmp_path: Path) -> None:
    writer, place = RunCheckpointIO(), tmp_path / "last.ckpt"
    good, bad = {"a": torch.ones(2), "n": torch.tensor(1)}, {"a": torch.tensor([1, float("nan")])}
    writer.save_checkpoint({"global_step": 1, "state_dict": good}, place)
    with pytest.raises(InputError, match=r"^step 2: training has diverged, a is not finite any more"):
        writer.save_checkpoint({"global_step": 2, "state_dict": bad}, place)
    assert torch.load(place, weights_only=True)["global_step"] == 1
