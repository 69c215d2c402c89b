"""The W&B workspace is built without network, of figures that runs log."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import wandb

from trex2_lightning.commands.dashboard import main as wandb_dashboard
from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation import costs
from trex2_lightning.evaluation.history import read_history
from trex2_lightning.studies.dashboard import workspace
from trex2_lightning.training.fit import train

ws = pytest.importorskip("wandb_workspaces.workspaces")


def panels() -> dict[str, list[Any]]:
    return {section.name: section.panels for section in workspace("team", "project", "ablation_fusion").sections}


def test_curves_show_what_a_run_logs(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("train.max_steps=2")
    train(config)
    logged = set(read_history(config.folder))
    curves = panels()["Training"]
    assert {name for panel in curves for name in panel.y} <= logged
    assert {panel.x for panel in [*curves, *panels()["AP on val"]]} == {"trainer/global_step"}
    assert "val/ap" in logged  # by group where the data set has groups
    assert panels()["AP on val"][0].y == ["val/ap/seen"]


def test_latency_is_shown_for_every_number_of_names() -> None:
    shown = [[metric.name for metric in panel.metrics] for panel in panels()["Latency"]]
    assert shown == [[f"latency/{count}/{step}" for step in costs.Cost._fields] for count in costs.VOCABULARIES]


def test_runs_are_those_of_the_group_by_fusion_and_granularity() -> None:
    view = workspace("team", "project", "ablation_fusion")._to_model()
    [runs] = view.spec.section.run_sets
    assert [key.name for key in runs.grouping] == ["model.value.fusion", "model.value.granularity"]
    assert '"ablation_fusion"' in json.dumps(runs.filters)


def test_no_key_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(_self: object) -> None:
        raise wandb.errors.UsageError("no API key\nmore")

    monkeypatch.setattr(ws.Workspace, "save", save)
    with pytest.raises(InputError, match=r"wandb login") as caught:
        wandb_dashboard(["--entity", "team"])
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(InputError, match=r"pip install -e \"\.\[dashboard\]\""):
        workspace("team", "project", "group")
