"""Fixtures of more than one folder."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_data import SIZES, TINY, write_split, write_tiny

from trex2_lightning.config import Config, load, save, to_dict
from trex2_lightning.ops.deformable import level_table
from trex2_lightning.structures import FeatureMaps

# A job in the background ignores SIGINT, and so would all processes that tests start and stop as a user does.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def tiny_coco(tmp_path: Path) -> Path:
    """Folder of a COCO data set: train (6 images), val (3) and test (3); the last image of each split has no boxes."""
    return write_tiny(tmp_path / "tiny")


@pytest.fixture
def square_coco(tmp_path: Path) -> Path:
    """As `tiny_coco`, but all images are 64 x 64, so that a batch needs no padding."""
    root = tmp_path / "square"
    for number, (split, num_images) in enumerate(SIZES.items()):
        write_split(root, split, num_images, random.Random(number), sides=(64, 64))
    return root


@pytest.fixture
def maps() -> Callable[..., FeatureMaps]:
    """`maps(tokens, valid, shapes)`: feature maps of images without padding."""

    def made(tokens: torch.Tensor, valid: torch.Tensor, shapes: tuple[tuple[int, int], ...]) -> FeatureMaps:
        ratios = torch.ones(len(tokens), len(shapes), 2)
        return FeatureMaps(
            tokens, torch.zeros_like(tokens), valid, shapes, level_table(shapes, tokens.device), ratios, tokens
        )

    return made


@pytest.fixture
def tiny_config(tiny_coco: Path, tmp_path: Path) -> Callable[..., Config]:
    """`tiny_config("key=value", ...)`: the detector of tiny.yaml on `tiny_coco`, to run in a folder of the test."""

    def configured(*overrides: str) -> Config:
        return load(TINY, [f"data.root={tiny_coco}", f"output={tmp_path / 'runs'}", *overrides])

    return configured


@pytest.fixture
def checkpoint(_one_step: Path, tiny_config: Callable[..., Config]) -> Path:
    """`last.ckpt` in the folder of a run of one step with text, a copy that the test may change."""
    return _copy_of_run(_one_step, tiny_config("train.max_steps=1"))


@pytest.fixture
def visual_checkpoint(_random_visual: Path, tiny_config: Callable[..., Config]) -> Path:
    """The same of stage 2, as far as its configuration goes; its weights are random."""
    return _copy_of_run(_random_visual, tiny_config("name=visual", "train.rhythm.visual=1", "eval.references=[1]"))


@pytest.fixture(scope="session")
def _one_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trex2_lightning.training.fit import train  # takes seconds, and most tests need no training

    root = tmp_path_factory.mktemp("one_step")
    config = load(TINY, [f"data.root={write_tiny(root / 'tiny')}", f"output={root}", "train.max_steps=1"])
    train(config)
    return config.folder


@pytest.fixture(scope="session")
def _random_visual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trex2_lightning.training.build import build_module

    config = load(TINY, ["train.rhythm.visual=1"])
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("random_visual") / "checkpoints"
    folder.mkdir()
    module = build_module(config)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "last.ckpt")
    return folder.parent


def _copy_of_run(run: Path, config: Config) -> Path:
    """The checkpoint of the run as one of the configured run, in its folder."""
    shutil.copytree(run, config.folder)
    path = config.folder / "checkpoints" / "last.ckpt"
    torch.save(torch.load(path, weights_only=True) | {"config": to_dict(config)}, path)
    save(config, config.folder / "config.yaml")
    return path
