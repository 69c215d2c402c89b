"""What would leave an evaluation without figures is found before it begins; what is damaged later is left out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.config import Config, TaskConfig
from trex2_lightning.data.images.image_files import ImageError
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation import evaluate as evaluation
from trex2_lightning.evaluation import tasks
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.finished import FinishedTasks
from trex2_lightning.evaluation.report import write_evaluation
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.training.build import build_module

TinyConfig = Callable[..., Config]


@pytest.fixture
def nothing_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptedDetector, "encode_image", lambda *_: pytest.fail("too late"))


def damage(root: Path) -> None:
    last = root / "test" / "3.jpg"
    last.write_bytes(last.read_bytes()[:200])


@pytest.mark.usefixtures("nothing_is_detected")
def test_the_last_image_of_a_test_split(tiny_config: TinyConfig, tiny_coco: Path) -> None:
    damage(tiny_coco)
    config = tiny_config()
    with pytest.raises(InputError, match=r"^data\.test: 1 of 3 images cannot be read, .*test/3\.jpg"):
        evaluate(config, build_module(config), "test", ["text"])


@pytest.mark.usefixtures("nothing_is_detected")
def test_the_last_image_of_the_last_task(tiny_config: TinyConfig, tiny_coco: Path, tmp_path: Path) -> None:
    for name in ("first", "last"):
        shutil.copytree(tiny_coco, tmp_path / "tasks" / name)
    damage(tmp_path / "tasks" / "last")
    config = tiny_config(f"data.root={tmp_path / 'tasks'}")
    config.eval.tasks = {name: TaskConfig() for name in ("first", "last")}
    with pytest.raises(InputError, match=r"^last: data\.test: 1 of 3 images cannot be read, .*last/test/3\.jpg"):
        tasks.evaluate_tasks(config, build_module(config), "test", ["text"])


@pytest.mark.usefixtures("nothing_is_detected")
@pytest.mark.parametrize("boxes", ["crowds", "none"])
def test_a_split_without_a_box_to_find(tiny_config: TinyConfig, tiny_coco: Path, tmp_path: Path, boxes: str) -> None:
    """As of a tool that calls brushed masks crowds: an empty table would come of it."""
    content = json.loads((tiny_coco / "test.json").read_text())
    boxes_left = [box | {"iscrowd": 1} for box in content["annotations"]] if boxes == "crowds" else []
    for name in ("first", "last"):
        shutil.copytree(tiny_coco, tmp_path / "tasks" / name)
    for file in (tiny_coco / "test.json", tmp_path / "tasks" / "last" / "test.json"):
        file.write_text(json.dumps(content | {"annotations": boxes_left}))
    config = tiny_config()
    reason = r"\d are crowds" if boxes == "crowds" else "there is no box in it"
    with pytest.raises(InputError, match=rf"^data\.test \(.*\): none of its 3 images has a box to use: {reason}"):
        evaluate(config, build_module(config), "test", ["text"])
    config = tiny_config(f"data.root={tmp_path / 'tasks'}")
    config.eval.tasks = {name: TaskConfig() for name in ("first", "last")}
    with pytest.raises(InputError, match=r"^last: data\.test \(.*\): none of its 3 images has a box to use"):
        tasks.evaluate_tasks(config, build_module(config), "test", ["text"])


def test_an_image_that_is_damaged_later_is_left_out_and_named(
    tiny_config: TinyConfig, tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures are those of a file without it."""
    content = json.loads((tiny_coco / "test.json").read_text())
    boxes = [box for box in content["annotations"] if box["image_id"] != 2]
    shutil.copytree(tiny_coco, tmp_path / "without")
    without = content | {"images": [one for one in content["images"] if one["id"] != 2], "annotations": boxes}
    (tmp_path / "without" / "test.json").write_text(json.dumps(without))
    config = tiny_config("data.unreadable=0.4", "eval.batch_size=1")
    module = build_module(config)
    expected = evaluate(tiny_config(f"data.root={tmp_path / 'without'}", "eval.batch_size=1"), module, "test", ["text"])
    monkeypatch.setattr(evaluation, "check_images", lambda *_: (tiny_coco / "test" / "2.jpg").write_bytes(b"gone"))
    report = evaluate(config, module, "test", ["text"])
    assert report.left_out == (str(tiny_coco / "test" / "2.jpg"),)
    assert report.rows["text"].figures == expected.rows["text"].figures
    write_evaluation({"": report}, tmp_path / "written", {})
    assert json.loads((tmp_path / "written" / "evaluation.json").read_text())["left_out"] == [*report.left_out]
    finished = FinishedTasks(tmp_path / "tasks", module, "test", ["text"])
    finished.keep("one", config, report)
    kept = finished.report_of("one", config)
    assert kept is not None
    assert (kept.left_out, expected.left_out) == (report.left_out, ())
    with pytest.raises(ImageError, match=r"^data\.test: 1 of 2 images looked at cannot be read, more than data\.unr"):
        evaluate(tiny_config("data.unreadable=0.3"), module, "test", ["text"])
