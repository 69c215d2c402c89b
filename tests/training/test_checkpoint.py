"""Checkpoints of earlier formats load, start runs and are gone on from; what is no checkpoint is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from recorded_runs import CrashError, last_of
from torch import Tensor

from trex2_lightning.config import Config, files, from_dict, migrations
from trex2_lightning.config.migrations import CONFIG_FORMAT, MIGRATIONS, RenamedWeights
from trex2_lightning.errors import InputError
from trex2_lightning.structures import IMAGENET_PIXELS
from trex2_lightning.training.build import build_datamodule, build_module
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule

TinyConfig = Callable[..., Config]
# Settings, and names and shapes of the weights, of two detectors as the first format had them. Never made anew.
FORMAT_0: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "format_0.json").read_text())
OLD_PIXELS = ("mean=[0.485,0.456,0.406]", "std=[0.229,0.224,0.225]")
INTEGERS = {"num_batches_tracked": torch.int64, "_extra_state": torch.uint8}  # the second: a vocabulary of nothing


def checkpoint_of_format_0(cell: str) -> dict[str, Any]:
    """As a run of then wrote it, with random weights."""
    config, shapes = deepcopy(FORMAT_0[cell]["config"]), FORMAT_0[cell]["state_dict"]
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(shape, generator=generator).mul(0.1).to(INTEGERS.get(name.split(".")[-1], torch.float32))
        for name, shape in shapes.items()
    }
    return {"config": config, "state_dict": state, "memory_bank": {"": {"cell": torch.randn(2, 32)}}}


def crash(module: DetectionModule, *_: Any) -> None:
    if module.trainer.global_step == 3:
        raise CrashError


def total(state: dict[str, Tensor]) -> float:
    return sum(tensor.double().sum().item() for tensor in state.values())


@pytest.mark.parametrize("cell", FORMAT_0)
def test_a_checkpoint_of_the_first_format_loads(tmp_path: Path, cell: str) -> None:
    checkpoint = checkpoint_of_format_0(cell)
    assert "format" not in checkpoint["config"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    config, module = load_checkpoint(tmp_path / "old.ckpt")
    assert f"{config.model.granularity}_{config.model.fusion}" == cell
    assert total(module.state_dict()) == pytest.approx(total(checkpoint["state_dict"]), rel=1e-12)
    assert module.visual_trained is bool(config.train.rhythm.visual)
    assert module.detector.backbone.pixels == IMAGENET_PIXELS, "as it was trained, whatever fits its backbone"
    assert build_datamodule(config).statistics == IMAGENET_PIXELS


def test_what_lies_beside_the_weights_is_gone_on_with() -> None:
    checkpoint = checkpoint_of_format_0("phrase_late")
    counts = {name: {"processed": 3, "completed": 3} for name in ("total", "current")}
    loops: dict[str, Any] = {"epoch_loop.batch_progress": counts, "epoch_loop.state_dict": {}}
    of_the_trainer = {"global_step": 3, "loops": {"fit_loop": loops}}
    module = build_module(from_dict(checkpoint["config"]))
    module.trainer = Trainer(accumulate_grad_batches=2, logger=False, barebones=True)
    module.on_load_checkpoint(checkpoint | of_the_trainer)
    assert counts["total"]["completed"] == counts["current"]["completed"] == 6
    saved: dict[str, Any] = {}
    module.on_save_checkpoint(saved)
    assert saved["config"]["format"] == CONFIG_FORMAT
    assert saved["visual_trained"] is True
    assert torch.equal(saved["memory_bank"][""]["cell"], checkpoint["memory_bank"][""]["cell"])


def test_a_run_starts_from_a_checkpoint_of_the_first_format(tiny_config: TinyConfig, tmp_path: Path) -> None:
    checkpoint = checkpoint_of_format_0("phrase_late")
    torch.save(checkpoint, tmp_path / "old.ckpt")
    settings = [
        f"train.init_from={tmp_path / 'old.ckpt'}",
        "train.max_steps=1",
        "optim={lr: 0, lr_text: 0, lr_backbone: 0}",
    ]
    with pytest.raises(InputError, match=r"old\.ckpt was trained on pixels of another mean") as error:
        train(tiny_config(*settings))
    way_out = [word.rstrip(",") for word in str(error.value).split() if word.startswith("model.")]
    assert way_out == [f"model.backbone.{value}" for value in (*OLD_PIXELS, "name=test_resnet")]
    module = train(tiny_config(*settings, *way_out))
    torch.testing.assert_close(
        module.state_dict()["detector.decoder.norm.weight"], checkpoint["state_dict"]["detector.decoder.norm.weight"]
    )
    assert module.visual_trained


def test_a_run_of_an_earlier_format_is_gone_on_with(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the detector has another name since; averaged weights, trained ones and the optimizer go on."""
    whole, broken = tiny_config("name=whole"), tiny_config("name=broken")
    train(whole)
    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "on_train_batch_start", crash)
        with pytest.raises(CrashError):
            train(broken)
    last = last_of(broken)
    checkpoint = torch.load(last, weights_only=True)
    for part in ("state_dict", "current_model_state"):
        checkpoint[part] = {
            name.replace("detector.decoder.", "detector.old."): tensor for name, tensor in checkpoint[part].items()
        }
    assert any("detector.old." in name for name in checkpoint["current_model_state"])
    torch.save(checkpoint, last)

    renamed = (RenamedWeights("detector.old.", "detector.decoder."),)
    monkeypatch.setattr(migrations, "MIGRATIONS", MIGRATIONS | {CONFIG_FORMAT + 1: renamed})
    for module in (migrations, files):
        monkeypatch.setattr(module, "CONFIG_FORMAT", CONFIG_FORMAT + 1)
    train(broken, resume=True)
    ends = [torch.load(last_of(c), weights_only=True) for c in (whole, broken)]
    assert [end["config"]["format"] for end in ends] == [CONFIG_FORMAT, CONFIG_FORMAT + 1]
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(tensor, ends[1][part][name]) for name, tensor in ends[0][part].items())


def test_a_checkpoint_of_a_newer_version_says_what_to_do(tmp_path: Path) -> None:
    torch.save({"config": {"format": CONFIG_FORMAT + 1, "later": 1}, "state_dict": {}}, tmp_path / "new.ckpt")
    with pytest.raises(InputError, match=rf"new\.ckpt has format {CONFIG_FORMAT + 1}, but .*: update trex2_lightning$"):
        load_checkpoint(tmp_path / "new.ckpt")


# What is no checkpoint


class Payload:
    """Reading it as an ordinary pickle would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"config": {}, "state_dict": Payload(tmp_path / "hacked")}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"x\.ckpt is not a checkpoint: .*could run code"):
        load_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"hello world", "is damaged"),
        (b"\x2e" + bytes(range(60)), "is damaged"),
        ("truncated", "is damaged"),
        ({"state_dict": {}}, "lacks `config` and `state_dict`"),
        ([1, 2], "lacks `config` and `state_dict`"),
        ({"config": 5, "state_dict": {}}, "lacks `config` and `state_dict`"),
        ({"config": {"gone": 1}, "state_dict": {}}, "gone: Key 'gone' not in 'Config'"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "x.ckpt"
    if content == "truncated":
        torch.save({"config": {}, "state_dict": {"a": torch.zeros(999)}}, path)
        content = path.read_bytes()[:2000]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError) as error:
        load_checkpoint(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no checkpoint .*gone\.ckpt"):
        load_checkpoint(tmp_path / "gone.ckpt")
