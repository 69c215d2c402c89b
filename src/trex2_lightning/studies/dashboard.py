"""A W&B workspace for the fusion ablation: AP by group, loss, step time and latency, by fusion and granularity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import wandb

from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.costs import VOCABULARIES, Cost
from trex2_lightning.studies.fusion_page import SHOWN_GROUPS

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

STEP = "trainer/global_step"


def save_workspace(entity: str, project: str, group: str) -> str:
    """Save the workspace at W&B; returns its address.

    Raises:
        InputError: as `workspace`, or W&B did not take it.
    """
    board = workspace(entity, project, group)
    try:
        board.save()
    except (wandb.Error, OSError, ValueError) as error:
        raise InputError(
            f"W&B did not take the workspace ({str(error).splitlines()[0]}): log in by `wandb login`, and "
            "upload the runs by `wandb sync` first"
        ) from error
    return str(board.url)


def workspace(entity: str, project: str, group: str) -> ws.Workspace:
    """The workspace, not saved yet; every panel has a line or a bar for each cell, the mean of its seeds.

    Raises:
        InputError: the library is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise InputError('this needs the library wandb-workspaces: pip install -e ".[dashboard]"') from error

    def curves(**titles: str) -> list[Any]:
        return [
            wr.LinePlot(title=title, x=STEP, y=[name], groupby_rangefunc="stddev") for name, title in titles.items()
        ]

    on_test: list[Any] = [
        wr.BarPlot(title=name, metrics=[wr.SummaryMetric(f"test/ap/{name}")]) for name in SHOWN_GROUPS
    ]
    latency: list[Any] = [
        wr.BarPlot(
            title=f"milliseconds, {count} names",
            metrics=[wr.SummaryMetric(f"latency/{count}/{step}") for step in Cost._fields],
        )
        for count in VOCABULARIES
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Fusion and granularity",
        sections=[
            ws.Section("AP on val", curves(**{f"val/ap/{name}": name for name in SHOWN_GROUPS}), is_open=True),
            ws.Section("AP on test", on_test, is_open=True),
            ws.Section("Latency", latency, is_open=True),
            ws.Section(
                "Training",
                curves(
                    **{
                        "loss": "loss",
                        "loss/queries/classification": "classification",
                        "loss/queries/l1": "L1",
                        "loss/queries/giou": "GIoU",
                        "resources/seconds_per_step": "seconds a step",
                        "resources/memory_gib": "peak memory, GiB",
                    }
                ),
                is_open=True,
            ),
        ],
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == group],
            groupby=[ws.Config("model.fusion"), ws.Config("model.granularity")],
        ),
    )
