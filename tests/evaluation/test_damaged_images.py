"""A damaged image is found before an evaluation begins, which would lose what the others have given."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.config import Config, TaskConfig
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation import tasks
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.training.build import build_module

TinyConfig = Callable[..., Config]


@pytest.fixture(autouse=True)
def _nothing_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptedDetector, "encode_image", lambda *_: pytest.fail("too late"))


def damage(root: Path) -> None:
    last = root / "test" / "3.jpg"
    last.write_bytes(last.read_bytes()[:200])


def test_the_last_image_of_a_test_split(tiny_config: TinyConfig, tiny_coco: Path) -> None:
    damage(tiny_coco)
    config = tiny_config()
    with pytest.raises(InputError, match=r"^data\.test: 1 of 3 images cannot be read, .*test/3\.jpg"):
        evaluate(config, build_module(config), "test", ["text"])


def test_the_last_image_of_the_last_task(tiny_config: TinyConfig, tiny_coco: Path, tmp_path: Path) -> None:
    for name in ("first", "last"):
        shutil.copytree(tiny_coco, tmp_path / "tasks" / name)
    damage(tmp_path / "tasks" / "last")
    config = tiny_config(f"data.root={tmp_path / 'tasks'}")
    config.eval.tasks = {name: TaskConfig() for name in ("first", "last")}
    with pytest.raises(InputError, match=r"^last: data\.test: 1 of 3 images cannot be read, .*last/test/3\.jpg"):
        tasks.evaluate_tasks(config, build_module(config), "test", ["text"])
