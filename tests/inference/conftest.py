"""A detector of random weights that knows exemplars, and the images of the test split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trex2_lightning.config import Config
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.training.build import build_module


@pytest.fixture
def config(tiny_config: Callable[..., Config]) -> Config:
    return tiny_config("train.rhythm.visual=1")


@pytest.fixture
def predictor(config: Config) -> Predictor:
    torch.manual_seed(0)
    return Predictor(config, build_module(config))


@pytest.fixture
def images(tiny_coco: Path) -> list[Path]:
    return [tiny_coco / "test" / f"{number}.jpg" for number in (1, 2, 3)]


@pytest.fixture
def image(images: list[Path]) -> Path:
    return images[0]
