"""Comparison of runs, of folders and of W&B, and what it says of folders that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from omegaconf import OmegaConf
from PIL import Image

from trex2_lightning import config
from trex2_lightning.commands.compare import main as compare_runs
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation import compare
from trex2_lightning.evaluation.compare import facts
from trex2_lightning.evaluation.history import read_history
from trex2_lightning.structures import IMAGENET_PIXELS

TINY = Path(__file__).parents[1] / "tiny.yaml"
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A folder as training and evaluation leave it."""

    def make(name: str, ap: float, *overrides: str) -> Path:
        folder = tmp_path / name
        for version, text in enumerate(
            (
                "step,loss,val/ap,val/ap/seen,resources/seconds_per_step,resources/memory_gib\n"
                "1,3.0,,,0.5,1.0\n2,,0.1,0.2,,\n3,2.0,,,0.3,2.0\n4,,0.5,0.6,,\n",
                f"step,val/ap,val/ap/seen,resources/seconds_per_step\n4,0.2,0.3,\n5,,,0.4\n6,{ap},{ap},\n",
            )
        ):
            (folder / "csv" / f"version_{version}").mkdir(parents=True)
            (folder / "csv" / f"version_{version}" / "metrics.csv").write_text(text)
        config.save(config.load(TINY, [f"name={name}", *overrides]), folder / "config.yaml")
        (folder / "evaluation.json").write_text(json.dumps({"ap": {"text": {"all": ap, "seen": ap + 0.1}}}))
        return folder

    return make


def test_history_follows_a_resumed_run(make_run: MakeRun, tmp_path: Path) -> None:
    history = read_history(make_run("a", 0.7))
    assert history["val/ap"] == [(2, 0.1), (4, 0.2), (6, 0.7)]  # the second file begins anew at step 4
    assert history["loss"] == [(1, 3.0), (3, 2.0)]
    assert read_history(tmp_path / "nowhere") == {}


def test_folders_are_compared(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late, early = make_run("late", 0.7), make_run("early", 0.4, "model.fusion=early", "optim.lr=0.002")
    cost = {"image": 1.0, "prompt": 2.0, "decode": 3.04}
    (early / "measures.json").write_text(json.dumps({"latency": {"100": cost}}))
    output = tmp_path / "compared"
    compare_runs([str(late), f"{early}/", "--output", str(output)])
    lines = (output / "comparison.md").read_text().splitlines()
    assert f"| {late} | text | 0.700 | 0.800 |" in lines
    assert f"| {early} | text, val split | 0.400 | 0.400 |" in lines
    assert f"| {late} | 0.400 | 2.00 |  |  |  |" in lines
    assert f"| {early} | 0.400 | 2.00 | 1.0 | 2.0 | 3.0 |" in lines
    settings = lines[lines.index("## Settings that differ") + 4 :]
    assert sorted(settings) == ["| model.fusion | late | early |", "| optim.lr | 0.001 | 0.002 |"]
    assert Image.open(output / "ap.png").width > 500
    assert "comparison.md and ap.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "settings"),
    [
        ("interactive_box", ("train.rhythm={text: 0, visual: 1}",)),
        (
            "interactive_point",
            ("train.rhythm={text: 0, visual: 1}", "train.best_by=[interactive_box, interactive_point]"),
        ),
        ("generic", ("train.rhythm={text: 1, visual: 1}", "train.best_by=[generic, text]")),
        (
            "text",
            (
                "train.rhythm={text: 1, visual: 1}",
                "train.best_by=[generic, text]",
                "data.sets.a={annotations: a.json, images: a, text: 1, visual: 1}",
            ),
        ),
        ("text", ("train.best_by=[generic, text]",)),
    ],
)
def test_what_val_was_asked_with_is_told(make_run: MakeRun, asked: str, settings: tuple[str, ...]) -> None:
    points = ["data.exemplars.points=1"] if asked == "interactive_point" else []
    run = make_run("visual", 0.4, *settings, *points)
    assert facts(str(run)).figures["ap"][f"{asked}, val split"] == {"all": 0.4, "seen": 0.4}


def test_runs_of_different_formats_differ_in_settings_of_both_alone(make_run: MakeRun, tmp_path: Path) -> None:
    pixels = [f"model.backbone.{name}={[*values]}" for name, values in IMAGENET_PIXELS._asdict().items()]
    new, old = make_run("new", 0.7, *pixels), make_run("old", 0.4)  # as the earlier one saw them
    values = OmegaConf.load(old / "config.yaml")
    del values["format"], values.model.backbone["mean"], values.model.backbone["std"]
    values.eval.backend = "pycocotools"
    OmegaConf.save(values, old / "config.yaml")
    assert compare.settings_block({"new": facts(str(new)), "old": facts(str(old))}).lines == []


def test_a_w_and_b_run_is_like_its_folder(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run("a", 0.7, "model.fusion=early")
    history = read_history(folder)
    rows = [
        {"_step": n, "trainer/global_step": step, name: value, "epoch": None}
        for n, (name, step, value) in enumerate((name, *point) for name, points in history.items() for point in points)
    ]
    latency = {"latency/100/image": 1, "latency/100/prompt": 2, "latency/100/decode": 3}
    stored = SimpleNamespace(
        name="a",
        group="some",
        config=config.to_dict(config.load(folder / "config.yaml")),
        summary={"val/ap": 0.7, "val/ap/seen": 0.7, "test/ap/all": 0.6, "_runtime": 3, **latency},
        scan_history=lambda: iter([*rows, {"_step": 99, "system": 1.0}]),
    )
    asked: list[Any] = []
    evaluations = [{"ap/text/all": 0.1, "ap/generic_16/all": 0.2}, {"ap/text/all": 0.6, "top1/regions/all": 0.9}]
    evaluations.append({"lvis_val/ap/text/all": 0.3})  # of other data

    class Api:
        def run(self, name: str) -> Any:
            asked.append(name)
            return stored

        def runs(self, path: str, filters: dict[str, str], *, lazy: bool) -> list[Any]:
            asked.append((path, filters, lazy))
            return [SimpleNamespace(summary=summary) for summary in evaluations]

    monkeypatch.setattr(wandb, "Api", Api)
    found, local = facts("team/trex2_lightning/1abc"), facts(str(folder))
    own = {"group": "some", "displayName": "a", "jobType": "evaluation"}
    assert asked == ["team/trex2_lightning/1abc", ("team/trex2_lightning", own, False)]
    assert found.settings == local.settings
    assert found.settings["model.fusion"] == "early"
    assert {name: found.history[name] for name in history} == history
    assert found.figures["ap"]["text, val split"] == local.figures["ap"]["text, val split"] == {"all": 0.7, "seen": 0.7}
    assert found.figures["ap"]["text, test split"] == {"all": 0.6}
    assert (found.figures["ap"]["text"], found.figures["ap"]["generic_16"]) == ({"all": 0.6}, {"all": 0.2})
    assert found.figures["top1"] == {"regions": {"all": 0.9}}
    assert found.latency == {"image": 1, "prompt": 2, "decode": 3}
    compare_runs(["team/trex2_lightning/1abc", str(folder), "--output", str(tmp_path / "out")])
    stored.summary = {"ap/text/all": 0.6}  # the run of an evaluation itself
    evaluations.clear()
    assert facts("team/trex2_lightning/1abc").figures["ap"] == {"text": {"all": 0.6}}
    stored.summary = {"loss": 2.0}
    with pytest.raises(InputError, match="never evaluated"):
        facts("team/trex2_lightning/1abc")
    stored.config["format"] = 10**6
    with pytest.raises(InputError, match="update trex2_lightning") as caught:
        facts("team/trex2_lightning/1abc")
    assert "log in" not in str(caught.value)


def test_every_protocol_and_metric_of_an_evaluation_is_shown(make_run: MakeRun, tmp_path: Path) -> None:
    one, other = make_run("one", 0.7), make_run("other", 0.4)
    federated = {"text": {"all": 0.3, "rare": 0.1}, "generic_16": {"all": 0.2, "rare": 0.05}}
    found = {"checkpoint": "last.ckpt", "ap": federated, "fixed_ap": {"text": {"all": 0.35}}, "aps": federated}
    (one / "evaluation.json").write_text(json.dumps(found | {"top1": {"region_classification": {"all": 0.8}}}))
    compare_runs([str(one), str(other), "--output", str(tmp_path)])
    text = (tmp_path / "comparison.md").read_text()
    for block in ("AP", "Fixed AP", "Region classification, share of names right"):
        assert f"## {block}\n" in text
    assert f"| {one} | generic_16 | 0.200 | 0.050 |  |" in text
    assert f"| {other} | text | 0.400 |  | 0.500 |" in text
    assert f"| {one} | text | 0.350 |" in text
    assert f"| {one} | region_classification | 0.800 |" in text
    assert "counts" not in text


def test_what_is_no_run_is_told_in_one_line(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bare, broken, val = (make_run(name, 0.5) for name in ("good", "bare", "broken", "val"))
    (bare / "evaluation.json").unlink()
    (broken / "evaluation.json").write_text('{"ap": ')
    (val / "evaluation.json").write_text(json.dumps({"split": "val", "ap": {"text": {"all": 0.5}}}))

    class Api:
        def __init__(self) -> None:
            raise wandb.errors.UsageError("no key\nlog in")

    monkeypatch.setattr(wandb, "Api", Api)
    for wrong, message in (
        ([str(good), str(tmp_path)], "is no run, it has no config.yaml"),
        (
            [str(good), str(bare)],
            r"was never evaluated on its test split: run trex2 evaluate --ckpt .*best\.ckpt",
        ),
        ([str(good), str(val)], "val was never evaluated on its test split"),
        ([str(good), str(broken)], "evaluate the run again"),
        ([str(good), "nothing_there"], "there is no folder nothing_there"),
        ([str(good), "a/b/c"], r"there is no folder a/b/c, and W&B gives no such run \(no key\)"),
        ([str(good)], "two or more different runs"),
        ([str(good), f"{good}/"], "two or more different runs"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            compare_runs([*wrong, "--output", str(tmp_path / "out")])
        assert "\n" not in str(caught.value)
    assert compare.WANDB_ID.fullmatch("team/project/1abc")
