"""What runs really log to W&B, offline as they ship, and that the workspace and the comparison show it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb

from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.config import Config, LoggingConfig
from trex2_lightning.evaluation.compare import compare
from trex2_lightning.studies.dashboard import workspace
from trex2_lightning.training.fit import train

pytest.importorskip("wandb_workspaces.workspaces")
internal = pytest.importorskip("wandb.proto.wandb_internal_pb2")
pytestmark = pytest.mark.ci

BLOCK, HEADER, CHUNK = 32_768, 7, 7  # bytes of W&B's files: of a block, and of what begins a file and a chunk
ROWS = {"text", "interactive_box", "interactive_point", "generic_1", "mixed", "mixed_mean"}
RHYTHM = ["train.rhythm={visual: 1, text: 1}", "train.max_steps=2", "eval.references=[1]"]


def logged(folder: Path) -> set[str]:
    """Names of the figures that all W&B runs of a run's folder have in the end."""
    wandb.teardown()  # its other process may still be writing
    return {name for file in sorted(folder.rglob("wandb/offline-run-*/run-*.wandb")) for name in summary(file)}


def summary(file: Path) -> set[str]:
    """Names of the figures of an offline W&B run: chunks of records, as in LevelDB's log."""
    content, place, record, names = file.read_bytes(), HEADER, b"", set()
    while place < len(content):
        if BLOCK - place % BLOCK < CHUNK:  # no room for another chunk
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        record += content[place + CHUNK : place + CHUNK + length]
        place += CHUNK + length
        if kind in (1, 4):  # whole, or the last chunk of a record
            message = internal.Record.FromString(record)
            names |= {"/".join(item.nested_key) or item.key for item in message.history.item}
            record = b""
    return {name for name in names if not name.startswith("_")}


def shown(names: set[str]) -> dict[str, list[set[str]]]:
    """The figures of every panel by section."""
    board = workspace("team", "project", "group", names)
    return {section.name: [figures(panel) for panel in section.panels] for section in board.sections}


def figures(panel: Any) -> set[str]:
    return set(panel.y) if hasattr(panel, "y") else {metric.name for metric in panel.metrics}


@pytest.fixture
def offline(tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """`tiny_config` with the logging that ships."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return lambda *overrides: tiny_config(f"logging.wandb={LoggingConfig().wandb}", *RHYTHM, *overrides)


def test_a_run_without_groups_fills_every_panel(offline: Callable[..., Config], tmp_path: Path) -> None:
    config = offline()
    train(config)
    last = str(config.folder / "checkpoints" / "last.ckpt")
    evaluate_command(["--ckpt", last])
    evaluate_command(["--ckpt", last, "--split", "val", "--protocol", "text"])
    names = logged(config.folder)
    panels = shown(names)
    assert set().union(*(panel for section in panels.values() for panel in section)) <= names
    assert panels["AP on val"] == [{"val/ap"}]
    assert {f"ap/{row}/all" for row in ROWS} <= set().union(*panels["AP, test split"])
    assert panels["AP, val-text"] == [{"val-text/ap/text/all"}]
    assert panels["Region classification, share of names right, test split"] == [{"top1/region_classification/all"}]
    assert all(panel in panels["Training"] for panel in ({"loss/queries/l1"}, {"visual_loss/queries/l1"}))
    assert any(name.startswith("val/pictures") for name in names)

    other = offline("name=other")
    train(other)
    evaluate_command(["--ckpt", str(other.folder / "checkpoints" / "last.ckpt")])
    table = compare([str(config.folder), str(other.folder)], tmp_path / "compared")[0]
    assert {asked for _, asked, *_ in table.lines} >= ROWS


def test_a_run_with_groups_fills_every_panel(offline: Callable[..., Config], tiny_coco: Path) -> None:
    for split in ("train", "val", "test"):
        file = tiny_coco / f"{split}.json"
        content = json.loads(file.read_text())
        for image in content["images"]:
            image |= {"neg_category_ids": [1, 2, 3], "not_exhaustive_category_ids": []}
        for category, frequency in zip(content["categories"], "rcf", strict=True):
            category["frequency"] = frequency
        file.write_text(json.dumps(content))
    config = offline("data.format=lvis", "eval.metric=lvis")
    train(config)
    evaluate_command(["--ckpt", str(config.folder / "checkpoints" / "last.ckpt")])
    names = logged(config.folder)
    panels = shown(names)
    assert set().union(*(panel for section in panels.values() for panel in section)) <= names
    groups = ("rare", "common", "frequent")
    for metric in ("ap", "fixed_ap"):
        assert {f"val/{metric}", *(f"val/{metric}/{group}" for group in groups)} <= set().union(*panels["AP on val"])
    for title, metric in (("AP", "ap"), ("Fixed AP", "fixed_ap")):
        on_test = panels[f"{title}, test split"]
        assert {f"{metric}/{row}/all" for row in ROWS} <= set().union(*on_test)
        assert {f"{metric}/text/{group}" for group in ("all", *groups)} & names in on_test
