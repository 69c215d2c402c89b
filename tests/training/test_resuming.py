"""What may be changed where a run goes on is really applied and written down; all else is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recorded_runs import CrashError, last_of, read, recorded_losses, rows
from torch import Tensor

from trex2_lightning.config import Config, load, to_dict
from trex2_lightning.errors import InputError
from trex2_lightning.structures import Batch
from trex2_lightning.training.fit import train
from trex2_lightning.training.module import DetectionModule
from trex2_lightning.training.resuming import MAY_CHANGE, _flat

TinyConfig = Callable[..., Config]
DECAYING = ("optim.decay_share=0.5", "optim.warmup_steps=1", "train.val_every=8", "train.save_every=2")


def recorded_rates(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Of the last group, by the steps done before, of runs from now on."""
    rates: dict[int, float] = {}
    step = DetectionModule.training_step

    def recording(self: DetectionModule, batch: Batch, batch_idx: int) -> Tensor:
        rates[self.trainer.global_step] = self.trainer.optimizers[0].param_groups[-1]["lr"]
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "training_step", recording)
    return rates


def stopped(config: Config, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    with monkeypatch.context() as patch:
        recorded_losses(patch, stop_at=batch)
        with pytest.raises(CrashError):
            train(config)


def test_another_length_has_its_rates_from_the_first_step_on(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a run that was planned with it; the shorter plan has others there."""
    short, long = (tiny_config(f"name={name}", *DECAYING, f"train.max_steps={n}") for name, n in (("a", 4), ("b", 8)))
    with monkeypatch.context() as patch:
        planned = recorded_rates(patch)
        train(long)
    stopped(short, monkeypatch, batch=7)
    assert read(last_of(short))["global_step"] == 2
    with monkeypatch.context() as patch:
        after = recorded_rates(patch)
        train(load(short.folder / "config.yaml", ["train.max_steps=8"]), resume=True)
    assert after == {step: rate for step, rate in planned.items() if step >= 2}
    assert planned[3] == planned[2] == short.optim.lr  # the shorter plan has fallen to a half there
    state = read(last_of(short))
    assert state["global_step"] == state["config"]["train"]["max_steps"] == 8
    assert load(short.folder / "config.yaml").train.max_steps == 8
    assert load(short.folder / "config_until_step_2.yaml") == short
    assert state["earlier"] == [{"until": 2, "settings": {"train.max_steps": 4}}]


def test_no_run_ends_before_where_it_is(tiny_config: TinyConfig, checkpoint: Path) -> None:
    state = read(checkpoint)
    state["config"]["train"]["max_steps"] = 3
    torch.save(state, checkpoint)
    with pytest.raises(InputError, match=r"^train\.max_steps=1: the run has done 1 of its 3 steps: give more"):
        train(tiny_config("train.max_steps=1"), resume=True)


def test_how_a_run_is_divided_and_told_may_change_and_is_applied(
    tiny_config: TinyConfig, tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images in other batches, from another place, evaluated and saved at other steps."""
    whole = tiny_config("name=whole", "train.max_steps=6")
    train(whole)
    before = tiny_config("name=broken", "train.max_steps=6")
    stopped(before, monkeypatch, batch=5)
    elsewhere, moved = tmp_path / "elsewhere", tmp_path / "moved"
    shutil.copytree(tiny_coco, elsewhere)
    shutil.move(before.folder, moved / "renamed")
    changes = ("data.batch_size=1", "data.num_workers=1", "train.val_every=3", "train.save_every=1", "logging.every=2")
    places = (f"data.root={elsewhere}", f"output={moved}", "name=renamed")
    config = load(moved / "renamed" / "config.yaml", [*changes, *places])
    train(config, resume=True)
    best = read(moved / "renamed" / "checkpoints" / "best.ckpt")
    aps = {int(row["step"]) + 1: float(row["val/ap"]) for row in rows(config) if row["val/ap"]}
    assert aps[best["global_step"]] == max(aps.values())
    state = read(last_of(config))
    assert state["config"] == to_dict(config)
    assert [row["step"] for row in rows(config) if row["val/ap"]] == ["1", "2", "5"]
    assert [row["step"] for row in rows(config) if row["loss"]][2:] == ["3", "5"]
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"] == 6 * 4
    assert config.accumulate == 4
    one, other = (read(last_of(run))["state_dict"]["detector.selection.content"] for run in (whole, config))
    assert float((one - other).abs().max()) < 1e-2
    assert {change.split("=")[0] for change in (*changes, *places)} == {*state["earlier"][0]["settings"]}


@pytest.mark.parametrize(
    ("setting", "had"),
    [
        ("optim.weight_decay=0.0", "0.0001"),
        ("optim.warmup_steps=3", "2"),
        ("loss.l1=3.0", "5.0"),
        ("seed=1", "0"),
        ("data.augment.crop=0.5", "0.0"),
        ("train.total_batch=8", "4"),
        ("train.rhythm.visual=1", "0"),
        ("model.transformer.dropout=0.1", "0.0"),
        ("eval.metric=lvis", "coco"),
    ],
)
def test_anything_else_is_refused_with_both_values(
    tiny_config: TinyConfig, checkpoint: Path, setting: str, had: str
) -> None:
    folder = checkpoint.parents[1]
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as error:
        train(tiny_config("train.max_steps=2", setting), resume=True)
    told = f"{setting}: a resumed run keeps its {had}; give it as it was, or start a run of another name= from the "
    assert str(error.value) == f"{told}weights by train.init_from={checkpoint}"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


def test_each_of_several_has_a_line(tiny_config: TinyConfig, checkpoint: Path) -> None:
    with pytest.raises(InputError) as error:
        train(tiny_config("train.max_steps=2", "seed=1", "optim.lr=5e-4"), resume=True)
    assert [line.split(";")[0] for line in str(error.value).splitlines()] == [
        "seed=1: a resumed run keeps its 0",
        "optim.lr=0.0005: a resumed run keeps its 0.001",
    ]


def test_what_may_change_is_a_setting(tiny_config: TinyConfig) -> None:
    assert _flat(to_dict(tiny_config())).keys() >= MAY_CHANGE


@pytest.mark.parametrize(
    ("split", "part", "change"),
    [
        ("train", "annotations", {"bbox": [1, 2, 13, 14]}),
        ("train", "annotations", {"iscrowd": 1}),
        ("val", "categories", {"name": "another block"}),
        ("val", "images", {"width": 500}),
    ],
)
@pytest.mark.usefixtures("checkpoint")
def test_another_data_set_is_refused(
    tiny_config: TinyConfig, tiny_coco: Path, tmp_path: Path, split: str, part: str, change: dict[str, object]
) -> None:
    """And the same one in another folder is not, as above."""
    other = shutil.copytree(tiny_coco, tmp_path / "other")
    file = other / f"{split}.json"
    content = json.loads(file.read_text())
    content[part][0] |= change
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"^data\.{split} \(.*\) is another data set than the run was"):
        train(tiny_config("train.max_steps=2", f"data.root={other}"), resume=True)
