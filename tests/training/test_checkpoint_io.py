"""A checkpoint is whole or is the one before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trex2_lightning.config import Config
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
    assert sorted(file.name for file in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
