"""Runs: what they write, that they resume exactly, and that their checkpoints stand for themselves."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from trex2_lightning.config import Config, load, save
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.report import Evaluation, EvaluationReport, by_group, write_results
from trex2_lightning.structures import Batch
from trex2_lightning.training.build import build_metric, build_module
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule

TinyConfig = Callable[..., Config]
State = dict[str, Any]


def last_of(config: Config) -> Path:
    return config.folder / "checkpoints" / "last.ckpt"


def read(path: Path) -> State:
    return torch.load(path, weights_only=True)


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal bit for bit, tensors included."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{index}")
    else:
        assert one == other, where


class CrashError(Exception):
    """Stands for a real one."""


def recorded_losses(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> dict[int, float]:
    """Losses by batch, of runs from now on; batch `stop_at` crashes."""
    losses: dict[int, float] = {}
    step = DetectionModule.training_step

    def recording(self: DetectionModule, batch: Batch, batch_idx: int) -> Tensor:
        if batch_idx == stop_at:
            raise CrashError
        loss = step(self, batch, batch_idx)
        losses[batch_idx] = loss.item()
        return loss

    monkeypatch.setattr(DetectionModule, "training_step", recording)
    return losses


def rows(config: Config) -> list[dict[str, str]]:
    """Of all CSV files of a run, in the order in which they were written."""
    files = sorted((config.folder / "csv").glob("*/metrics.csv"))
    return [row for file in files for row in csv.DictReader(file.open())]


# What a run writes


def test_a_run_writes_checkpoints_config_and_curves(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    train(config)
    assert {path.name for path in (config.folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert load(config.folder / "config.yaml") == config
    columns = {name for row in rows(config) for name, value in row.items() if value}
    expected = {"loss", "loss/queries/giou", "loss/noised/l1", "val/ap", "val/ap50", "lr-AdamW/rest", "lr-AdamW/text"}
    assert expected | {"resources/images_per_second", "data/skipped_images"} <= columns
    assert [row["step"] for row in rows(config) if row["val/ap"]] == ["1", "3"]  # counted from 0


def test_the_last_step_is_evaluated_and_saved_whatever_val_every_is(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.max_steps=5", "train.val_every=3")
    train(config)
    assert read(last_of(config))["global_step"] == 5
    assert [row["step"] for row in rows(config) if row["val/ap"]] == ["2", "4"]


def test_a_checkpoint_alone_rebuilds_the_detector(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    trained = train(config).eval()
    loaded_config, loaded = load_checkpoint(last_of(config))
    assert loaded_config == config
    assert not loaded.training
    assert_same(dict(trained.state_dict()), dict(loaded.state_dict()))
    one, other = (evaluate(config, module, "test").rows["text"] for module in (trained, loaded))
    assert_same([tuple(result) for result in one.results], [tuple(result) for result in other.results])
    assert one.figures.keys() >= {"ap", "ap50", "ap75"}


def test_averaged_weights_are_what_is_evaluated_and_saved(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """w <- d w + (1 - d) v after every step, started at the first step's weights."""
    history: list[Tensor] = []
    evaluated: list[Tensor] = []

    def content(module: DetectionModule) -> Tensor:
        return module.detector.selection.content.detach().clone()

    end, start = DetectionModule.on_train_batch_end, DetectionModule.on_validation_epoch_start

    def stepped(self: DetectionModule, *arguments: Any) -> None:
        history.append(content(self))
        end(self, *arguments)

    def starting(self: DetectionModule) -> None:
        if not self.trainer.sanity_checking:
            evaluated.append(content(self))
        start(self)

    monkeypatch.setattr(DetectionModule, "on_train_batch_end", stepped)
    monkeypatch.setattr(DetectionModule, "on_validation_epoch_start", starting)
    config = tiny_config("train.ema_decay=0.5", "train.total_batch=2", "train.val_every=4")
    returned = train(config)
    average = history[0]
    for weights in history[1:]:
        average = 0.5 * average + 0.5 * weights
    checkpoint = read(last_of(config))
    torch.testing.assert_close(evaluated[-1], average)
    torch.testing.assert_close(checkpoint["state_dict"]["detector.selection.content"], average)
    torch.testing.assert_close(content(returned), average)
    assert all(buffer.isfinite().all() for buffer in returned.buffers()), "as infinities, averaged, are not"
    assert torch.equal(checkpoint["current_model_state"]["detector.selection.content"], history[-1])
    assert not torch.allclose(history[-1], average, atol=1e-5)


def test_without_averaging_the_weights_themselves_are_saved(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.ema_decay=0", "train.max_steps=2")
    module = train(config)
    assert "current_model_state" not in read(last_of(config))
    assert_same(dict(module.state_dict()), read(last_of(config))["state_dict"])


def test_a_run_that_diverges_says_what_to_lower(tiny_config: TinyConfig) -> None:
    with pytest.raises(InputError, match=r"not finite.*lower optim\.lr") as error:
        train(tiny_config("optim.lr=1e30", "optim.warmup_steps=0"))
    assert "\n" not in str(error.value)


# Resuming


def interrupted_and_resumed(
    config: Config, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> tuple[dict[int, float], dict[int, float]]:
    """Losses by batch before the crash and after the restart."""
    with monkeypatch.context() as patch:
        before = recorded_losses(patch, stop_at)
        with pytest.raises(CrashError):
            train(config)
    with monkeypatch.context() as patch:
        after = recorded_losses(patch)
        train(config, resume=True)
    return before, after


@pytest.mark.parametrize(
    ("stop_at", "resumed_at", "saving"),
    [(8, 8, "train.val_every=2"), (11, 8, "train.val_every=2"), (14, 12, "train={val_every: 4, save_every: 3}")],
    ids=["between two steps", "between the batches of a step", "after a step without an evaluation"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch, stop_at: int, resumed_at: int, saving: str
) -> None:
    """Averaged weights, two batches a step, denoising and augmentation are on."""
    settings = ("train.max_steps=8", "data.augment.crop=0.5", "data.augment.color_jitter=0.3", saving)
    whole, broken = tiny_config("name=whole", *settings), tiny_config("name=broken", *settings)
    assert (whole.accumulate, whole.train.ema_decay > 0, whole.loss.denoising.queries > 0) == (2, True, True)
    with monkeypatch.context() as patch:
        losses = recorded_losses(patch)
        train(whole)
    before, after = interrupted_and_resumed(broken, monkeypatch, stop_at)
    assert list(losses) == list(range(16))
    assert before == {index: loss for index, loss in losses.items() if index < stop_at}
    assert after == {index: loss for index, loss in losses.items() if index >= resumed_at}
    assert_same_end(whole, broken)


def assert_same_end(whole: Config, broken: Config) -> None:
    one, other = read(last_of(whole)), read(last_of(broken))
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert_same(one[part], other[part], part)
    assert one["global_step"] == other["global_step"]


def test_a_crash_in_an_evaluation_does_no_harm(
    tiny_coco: Path, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The averaged weights are in the place of the trained ones then: saving them would ruin the run."""
    whole, broken = tiny_config("name=whole"), tiny_config("name=broken")
    train(whole)
    picture = tiny_coco / "val" / "1.jpg"
    content = picture.read_bytes()

    end = DetectionModule.on_train_batch_end

    def damaging(self: DetectionModule, *arguments: Any) -> None:
        if self.trainer.global_step == 4:
            picture.write_bytes(content[:100])
        end(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "on_train_batch_end", damaging)
        with pytest.raises(InputError, match=r"1\.jpg"):
            train(broken)
    picture.write_bytes(content)
    train(broken, resume=True)
    assert_same_end(whole, broken)


def test_a_crash_leaves_the_best_checkpoint_as_it_was(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    recorded_losses(monkeypatch, stop_at=6)
    with pytest.raises(CrashError):
        train(config)
    assert read(config.folder / "checkpoints" / "best.ckpt")["global_step"] == 2


def test_resuming_a_finished_run_leaves_it_as_it_is(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.max_steps=2")
    train(config)
    before = read(last_of(config))
    train(config, resume=True)
    assert_same(before, read(last_of(config)))


KILLED = """
import os, signal
from trex2_lightning.commands import train
from trex2_lightning.commands.terminal import command
from trex2_lightning.training.module import DetectionModule

step = DetectionModule.training_step

def killed(self, batch, batch_idx):
    if batch_idx == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)

DetectionModule.training_step = killed
command(train.main)
"""


@pytest.mark.ci
def test_twenty_steps_after_a_real_kill_are_the_same(tiny_config: TinyConfig, tmp_path: Path) -> None:
    settings = ("train.max_steps=26", "train.val_every=6", "data.augment.crop=0.5", "data.num_workers=1")
    whole, broken = tiny_config("name=whole", *settings), tiny_config("name=broken", *settings)
    train(whole)
    save(broken, tmp_path / "broken.yaml")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "broken.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it
    killed = subprocess.run(command, capture_output=True, env=environment, timeout=200)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert read(last_of(broken))["global_step"] == 6
    train(broken, resume=True)
    losses, resumed = ([row["loss"] for row in rows(config) if row["loss"]] for config in (whole, broken))
    assert len(losses) == 26
    assert resumed[-20:] == losses[-20:]
    assert_same_end(whole, broken)


def test_an_existing_run_is_not_overwritten(tiny_config: TinyConfig, checkpoint: Path) -> None:
    written = checkpoint.stat().st_mtime_ns
    with pytest.raises(InputError, match=r"already has a run: add --resume"):
        train(tiny_config("train.max_steps=1"))
    assert checkpoint.stat().st_mtime_ns == written


def test_there_must_be_a_run_to_resume(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    with pytest.raises(InputError, match=r"nothing to resume in .*tiny"):
        train(config, resume=True)
    assert not config.folder.exists()


def test_a_run_of_another_architecture_cannot_be_resumed(tiny_config: TinyConfig, checkpoint: Path) -> None:
    with pytest.raises(InputError, match="has another architecture"):
        train(tiny_config("train.max_steps=2", "model.num_queries=30"), resume=True)


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ([], r"data\.train"),
        (
            ["data.sets.captions={annotations: train.json, images: train, kind: grounding, text: 1}"],
            r"data\.sets\.captions",
        ),
    ],
)
def test_a_phrase_that_the_text_encoder_cannot_read_is_told_before_the_first_step(
    tiny_coco: Path, tiny_config: TinyConfig, settings: list[str], source: str
) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    content["categories"].append({"id": 99, "name": "a long, " * 9 + "winding road"})
    (tiny_coco / "train.json").write_text(json.dumps(content))
    config = tiny_config(*settings)
    with pytest.raises(InputError, match=rf"^{source}: the phrase 'a long, .* reads 16: shorten it; mend the data"):
        train(config)
    assert not config.folder.exists()


# Starting from a checkpoint


def test_a_run_starts_from_the_weights_of_another(tiny_config: TinyConfig) -> None:
    first = tiny_config("name=first")
    train(first)
    second = tiny_config(
        "name=second", f"train.init_from={last_of(first)}", "train.max_steps=1", "train.ema_decay=0", "seed=5",
        "optim.lr=0", "optim.lr_text=0", "optim.lr_backbone=0",
    )  # fmt: skip
    module = train(second)
    start, end = read(last_of(first))["state_dict"], dict(module.named_parameters())
    for name, parameter in end.items():
        assert torch.equal(parameter, start[name]), name


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        ("model.num_queries=30", r"detector\.selection\.content: \(20, 32\) in the file, \(30, 32\) in the model"),
        ("model.transformer.decoder_layers=3", r"missing in the file, .* in the model"),
        ("model.transformer.decoder_layers=1", r"in the file, nothing in the model"),
    ],
)
def test_weights_of_another_architecture_are_refused_by_name(
    tiny_config: TinyConfig, checkpoint: Path, change: str, tensor: str
) -> None:
    config = tiny_config("name=other", f"train.init_from={checkpoint}", change)
    with pytest.raises(InputError, match=f"has another architecture than the configured model.*{tensor}") as error:
        train(config)
    assert "\n" not in str(error.value)
    assert not config.folder.exists()


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


# Evaluation


def test_generic_prompts_cannot_ask_for_a_category_without_reference(
    tiny_coco: Path, tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    content["annotations"] = [item for item in content["annotations"] if item["category_id"] != 2]
    (tiny_coco / "train.json").write_text(json.dumps(content))
    config = tiny_config("eval.references=[2]", "data.num_workers=1", "train.rhythm.visual=1")
    with caplog.at_level(logging.WARNING, logger="trex2_lightning"):
        report = evaluate(config, build_module(config), "test", ["generic", "mixed"])
    assert [record.message for record in caplog.records if record.name == "trex2_lightning.evaluation.evaluate"] == [
        "no reference image has green block: generic prompts cannot ask for it"
    ]
    found = {row: {int(label) for result in report.rows[row].results for label in result.labels} for row in report.rows}
    assert found == {"generic_2": {0, 2}, "mixed": {0, 1, 2}}


def test_by_group_leaves_out_what_was_not_measured() -> None:
    figures = {"ap": 0.123456, "ap50": 0.5, "ap/seen": 0.25, "ap/novel": float("nan"), "ap50/seen": 0.75}
    assert by_group(figures) == {"all": 0.1235, "seen": 0.25}
    assert by_group(figures, "ap50") == {"all": 0.5, "seen": 0.75}


def test_pycocotools_reads_the_written_results_to_the_same_figures(
    tiny_coco: Path, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    file = tiny_coco / "test.json"
    truth = json.loads(file.read_text())
    for category, group in zip(truth["categories"], ("frequent", "rare", "novel"), strict=True):
        category |= {"group": group, "id": category["id"] * 10}
    for annotation in truth["annotations"]:
        annotation["category_id"] *= 10
    file.write_text(json.dumps(truth))
    config = tiny_config("train.max_steps=1", "eval.max_detections=60")
    report = evaluate(config, train(config), "test")
    nearly_right = [shifted(result, report) for result in report.rows["text"].results]
    metric = build_metric(config, report.records)
    metric.update(nearly_right)
    figures = metric.compute()
    write_results(report._replace(rows={"text": Evaluation(figures, nearly_right, {})}), tmp_path)

    assert 0.1 < figures["ap"] < 0.95
    counted = {"ap": [10, 20, 30], "ap/frequent": [10], "ap/rare": [20], "ap/novel": [30], "ap/seen": [10, 20]}
    for name, categories in counted.items():
        assert coco_ap(file, tmp_path / "results_text.json", categories) == pytest.approx(
            figures[name], abs=1e-6, nan_ok=True
        )


def shifted(result: Any, report: EvaluationReport) -> Any:
    """The true boxes, moved by a tenth of their size, in front of the detections."""
    [record] = [image for image in report.records.images if image.id == result.image_id]
    width_height = (record.boxes[:, 2:] - record.boxes[:, :2]).repeat(1, 2)
    return result._replace(
        boxes=torch.cat([record.boxes + 0.1 * width_height, result.boxes]),
        scores=torch.cat([torch.full((len(record.boxes),), 0.9), result.scores]),
        labels=torch.cat([record.labels, result.labels]),
    )


def coco_ap(truth: Path, results: Path, categories: list[int]) -> float:
    ground_truth = COCO(str(truth))
    evaluation = COCOeval(ground_truth, ground_truth.loadRes(str(results)), "bbox")
    evaluation.params.catIds = categories
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return float(precision[precision > -1].mean()) if (precision > -1).any() else float("nan")
