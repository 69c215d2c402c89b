"""The W&B workspace is built without network, of figures that runs have logged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from trex2_lightning.commands.dashboard import main as wandb_dashboard
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation import costs
from trex2_lightning.studies.dashboard import workspace
from trex2_lightning.studies.fusion_page import SHOWN_GROUPS

ws = pytest.importorskip("wandb_workspaces.workspaces")


LATENCY = [f"latency/{count}/{step}" for count in costs.VOCABULARIES for step in costs.Cost._fields]


def panels(logged: Iterable[str]) -> dict[str, list[Any]]:
    return {section.name: section.panels for section in workspace("team", "project", "group", [*logged]).sections}


def shown(panel: Any) -> list[str]:
    return list(panel.y) if hasattr(panel, "y") else [metric.name for metric in panel.metrics]


def test_panels_are_of_what_was_logged_and_none_is_empty() -> None:
    coco = ["val/ap", "val/ap50", "ap/text/all", "ap/generic_16/all", "ap50/text/all", "top1/region_classification/all"]
    lvis = [f"lvis_minival/{metric}/text/{group}" for metric in ("ap", "fixed_ap") for group in ("all", "rare")]
    tasks = ["odinw13/ap/text/mean", "odinw13/ap/text/median"]
    found = panels([*coco, *lvis, *tasks, "loss", "epoch", "val/pictures", "lr-AdamW", "latency/10/image"])
    assert {title: [shown(panel) for panel in some] for title, some in found.items()} == {
        "AP on val": [["val/ap"]],
        "AP, test split": [["ap/generic_16/all"], ["ap/text/all"]],
        "Region classification, share of names right, test split": [["top1/region_classification/all"]],
        "AP, lvis_minival": [lvis[:2]],
        "Fixed AP, lvis_minival": [lvis[2:]],
        "AP, odinw13": [tasks],
        "Training": [["loss"]],
    }
    assert [panel.title for panel in found["AP, test split"]] == ["generic_16", "text"]
    assert {panel.x for panel in [*found["Training"], *found["AP on val"]]} == {"trainer/global_step"}
    assert panels(["epoch"]) == {}


def test_the_fusion_ablation_s_groups_and_latency_are_shown() -> None:
    groups = [f"{split}/ap/{name}" for split in ("val", "test") for name in SHOWN_GROUPS]
    found = panels([*groups, *LATENCY])
    assert {shown(panel)[0] for panel in [*found["AP on val"], *found["AP on test"]]} == {*groups}
    assert [shown(panel) for panel in found["Latency"]] == [LATENCY[n : n + 3] for n in range(0, len(LATENCY), 3)]


def test_runs_are_those_of_the_group_by_fusion_granularity_and_stage() -> None:
    view = workspace("team", "project", "ablation_fusion", ["val/ap"])._to_model()
    [runs] = view.spec.section.run_sets
    keys = ["model.value.fusion", "model.value.granularity", "train.value.rhythm.visual"]
    assert [key.name for key in runs.grouping] == keys
    assert '"ablation_fusion"' in json.dumps(runs.filters)


class Api:
    """W&B's, which has two runs of the group `ablation_full`."""

    def runs(self, path: str, filters: dict[str, str], *, lazy: bool) -> list[Any]:
        assert (path, lazy) == ("team/trex2_lightning", False)
        if filters != {"group": "ablation_full"}:
            return []
        return [SimpleNamespace(summary={"val/ap": 0.5}), SimpleNamespace(summary={"ap/text/all": 0.5})]


def test_the_workspace_is_saved_with_panels_of_the_group_s_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setattr(ws.Workspace, "save", lambda board: saved.append(board))
    monkeypatch.setattr(ws.Workspace, "url", "address")
    wandb_dashboard(["--entity", "team", "--group", "ablation_full"])
    assert [shown(panel) for section in saved[0].sections for panel in section.panels] == [["val/ap"], ["ap/text/all"]]
    with pytest.raises(InputError, match=r"no run of the group gone: upload the runs by `wandb sync`"):
        wandb_dashboard(["--entity", "team", "--group", "gone"])


@pytest.mark.parametrize("refusing", ["Api", "save"])
def test_no_key_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, refusing: str) -> None:
    def refuse(*_: object) -> None:
        raise wandb.errors.UsageError("no API key\nmore")

    monkeypatch.setattr(wandb, "Api", refuse if refusing == "Api" else Api)
    monkeypatch.setattr(ws.Workspace, "save", refuse)
    with pytest.raises(InputError, match=r"no API key more\): log in by `wandb login`") as caught:
        wandb_dashboard(["--entity", "team", "--group", "ablation_full"])
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(InputError, match=r"pip install 'trex2_lightning\[dashboard\]'"):
        workspace("team", "project", "group", ["val/ap"])
