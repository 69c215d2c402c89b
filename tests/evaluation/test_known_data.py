"""Figures of what a checkpoint knows already are told of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.config import Config, override
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.fits import is_trained_on_val
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((), ""),
        (("data.test={annotations: train.json, images: train}",), "data.test is what it was trained on, data.train"),
        (("data.test={annotations: val.json, images: val}",), "data.test is what data.val was, by which best.ckpt"),
        (("data.test={annotations: copy.json, images: val}",), "data.test is what data.val was, by which best.ckpt"),
    ],
)
def test_a_split_that_training_saw_is_told_of(
    checkpoint: Path, tiny_coco: Path, caplog: pytest.LogCaptureFixture, changes: tuple[str, ...], told: str
) -> None:
    shutil.copy(tiny_coco / "val.json", tiny_coco / "copy.json")
    config, module = load_checkpoint(checkpoint)
    assert [*module.provenance[0]["data"]] == ["data.train", "data.val"]
    evaluate(override(config, [*changes]), module, "test", ["text"])
    assert told in caplog.text
    assert ("data.test is" in caplog.text) == bool(told)


def test_a_group_of_it_is_told_of_too(checkpoint: Path, tiny_coco: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tiny_coco / "val.json"
    content = json.loads(file.read_text())
    for category, group in zip(content["categories"], ("novel", "base", "base"), strict=True):
        category["group"] = group
    (tiny_coco / "grouped.json").write_text(json.dumps(content))
    config, module = load_checkpoint(checkpoint)
    grouped = ["data.test={annotations: grouped.json, images: val}", "eval.group=novel"]
    report = evaluate(override(config, grouped), module, "test", ["text"])
    assert report.records.groups == ("novel",)
    assert "data.test is what data.val was, by which best.ckpt" in caplog.text


@pytest.mark.parametrize("setting", ["data.limit=2", "eval.group=novel"])
def test_what_was_trained_on_in_part_is_told_of(
    tiny_config: Callable[..., Config], tiny_coco: Path, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    for category, group in zip(content["categories"], ("novel", "base", "base"), strict=True):
        category["group"] = group
    (tiny_coco / "train.json").write_text(json.dumps(content))
    same = "data.val={annotations: train.json, images: train}"
    train(tiny_config(setting, same, "train.max_steps=1", "train.calibrate=false"))
    config, module = load_checkpoint(tiny_config().folder / "checkpoints" / "last.ckpt")
    caplog.clear()
    evaluate(config, module, "val", ["text"])
    assert "data.val is what it was trained on, data.train" in caplog.text


def test_the_val_split_is_evaluated_without_a_word(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, module = load_checkpoint(checkpoint)
    evaluate(config, module, "val", ["text"])
    assert "data.val is" not in caplog.text


def test_references_that_are_what_is_evaluated_are_told_of(
    visual_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, module = load_checkpoint(visual_checkpoint)
    evaluate(config, module, "test", ["generic"])
    assert "exemplars" not in caplog.text
    evaluate(override(config, ["data.reference={annotations: test.json, images: test}"]), module, "test", ["generic"])
    assert "data.test is data.reference too: an image's own boxes are among its exemplars" in caplog.text


def test_a_set_may_be_the_val_split(checkpoint: Path) -> None:
    config, _ = load_checkpoint(checkpoint)
    of_val, of_train = (f"data.sets.a={{annotations: {s}.json, images: {s}, text: 1}}" for s in ("val", "train"))
    assert is_trained_on_val(override(config, [of_val]))
    assert not is_trained_on_val(override(config, [of_train]))
    assert not is_trained_on_val(override(config, [of_train, "data.sets.b={annotations: val.json, images: val}"]))
    assert is_trained_on_val(override(config, ["data.val={annotations: train.json, images: train}"]))
