"""`train.py FOLDER`, from looking to the next command, in a few steps of a tiny detector."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trex2_lightning.commands.train import main as train_command
from trex2_lightning.config import Config, load
from trex2_lightning.errors import InputError
from trex2_lightning.training.checkpoint import load_checkpoint

Write = Callable[..., Path]
TINY = [
    *("data.size=64", "data.max_size=64", "data.num_workers=0", "train.max_steps=2", "train.total_batch=2"),
    *("model.width=32", "model.num_queries=10", "loss.denoising.queries=10", "logging.wandb=disabled"),
    "model.backbone={name: test_resnet, weights: '', frozen: []}",
    *("model.text={width: 32, layers: 1}", "model.transformer={ffn: 64}", "model.visual={layers: 1, ffn: 64}"),
]


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs are written below the folder that the command is called in."""
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger("trex2_lightning").level
    yield
    logging.getLogger("trex2_lightning").setLevel(level)


def run(*arguments: Any) -> None:
    train_command([str(argument) for argument in arguments])


def config_of(name: str) -> Config:
    return load(Path("runs", name, "config.yaml"))


def test_a_folder_becomes_a_detector_of_both_stages(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A format without val and test: both the longest way and the least to begin with."""
    root = write("voc", train=10)
    run(root, *TINY)
    printed = capsys.readouterr().out
    folder = Path("runs/pets")
    assert {path.name for path in folder.iterdir()} >= {
        *("config.yaml", "choices.md", "detections.png", "evaluation.json", "checkpoints", "data"),
    }
    config = config_of("pets")
    assert config == load_checkpoint(folder / "checkpoints" / "best.ckpt")[0]
    assert (config.data.size, config.train.max_steps, config.data.batch_size) == (64, 2, 2)
    assert config.data.test == config.data.val
    assert "train.accelerator=cpu: " in printed
    assert "data.size=" not in printed  # ours, not chosen
    assert f"{len(config_listed())} pictures" in printed
    assert "these figures are of val" in printed
    with Image.open(folder / "detections.png") as sheet:
        assert min(sheet.size) > 100
    rows = json.loads((folder / "evaluation.json").read_text())["ap"]
    assert {"text", "random_phrases", "foreign_phrases", "interactive_box", "generic_1"} <= set(rows)
    assert "  python scripts/predict.py IMAGE --ckpt runs/pets/checkpoints/best.ckpt --text dog" in printed.splitlines()
    [again] = [line for line in printed.splitlines() if "--stage" in line]
    assert any("--reference dog=" in line for line in printed.splitlines())  # by appearance

    run(*shlex.split(again)[2:], "train.max_steps=3")
    stage2 = config_of("pets_stage2")
    assert stage2.train.init_from == str(folder / "checkpoints" / "best.ckpt")
    assert (stage2.data, stage2.model) == (config.data, config.model)
    assert (stage2.train.rhythm.visual, stage2.optim.lr, stage2.logging.job_type) == (2, 4e-4, "stage2")
    rows = json.loads(Path("runs/pets_stage2/evaluation.json").read_text())["ap"]
    assert {"text", "random_phrases", "interactive_box", "wrong_pictures", "generic_1"} <= set(rows)
    assert load_checkpoint(Path("runs/pets_stage2/checkpoints/last.ckpt"))[1].visual_trained

    with pytest.raises(InputError, match="runs/pets already has a run: add --resume"):
        run(root, *TINY)
    run(root, "--resume", "train.max_steps=4")
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4


def config_listed() -> list[str]:
    return Path("runs/pets/data/divided/val.txt").read_text().split()


def test_looking_alone_writes_all_settings_and_why(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    run(write("yolo", train=4, val=2, test=2), "--look", "output=elsewhere", "name=mine", "optim.lr=1e-3", "seed=3")
    folder = Path("elsewhere/mine")
    config = load(folder / "config.yaml")
    assert config.folder == folder
    assert not (folder / "checkpoints").exists()
    for split in ("train", "val", "test"):
        assert getattr(config.data, split).annotations == str((folder / "data" / split).resolve())
    assert (config.optim.lr, config.seed) == (1e-3, 3)
    assert config.model.appearance.input  # photographs.yaml
    told = (folder / "choices.md").read_text()
    assert f"| `train.max_steps` | {config.train.max_steps} | " in told
    assert "4 boxes of 2 categories" in told
    printed = capsys.readouterr().out
    assert f"  train.max_steps={config.train.max_steps}: " in printed


def test_a_folder_may_be_called_anything(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home := tmp_path / "Bücher # 1, it's: mine").mkdir()
    monkeypatch.chdir(home)
    run(write("coco", train=4, val=2).rename(home / "größe"), "--look")
    config = load("runs/größe/config.yaml")
    assert config.data.test.annotations == str(home / "runs" / "größe" / "data" / "val")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage=2"], "runs/pets has no stage 1 to start from: run python scripts/train.py"),
        (["--resume"], "there is nothing to resume in runs/pets"),
        (["train.devices=2"], "a folder is trained in one process"),
        (["--look", "data.format=odvg"], "data.format=odvg: in a folder are found coco, "),
        (["--look", "data.sise=64"], "Key 'sise' not in 'DataConfig'"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, write: Write) -> None:
    with pytest.raises(InputError, match=message):
        run(write("coco", train=4, val=2), *arguments)


def test_an_experiment_file_has_no_stages() -> None:
    with pytest.raises(InputError, match="--stage and --look are of a folder"):
        run("experiments/photographs.yaml", "--stage=2")
