"""A checkpoint is whole or is the one before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.config import Config
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
    checkpoint = {"state_dict": {"a": 1}, "current_model_state": {"a": 2}, "optimizer_states": [3], "config": {}}
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
