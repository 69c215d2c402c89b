"""A W&B workspace for runs of one group: AP on val, every protocol, loss, step time and latency, by fusion, granularity
and stage.

Groups of categories, metrics and protocols differ (`shapes` and LVIS have groups, COCO has none), so panels are made of
the figures that the runs have logged, and none stays empty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import wandb

from trex2_lightning.errors import InputError, reason_of
from trex2_lightning.evaluation.compare import COMPARED, LOGGED_FIGURE
from trex2_lightning.evaluation.costs import VOCABULARIES, Cost

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

STEP = "trainer/global_step"
TRAINING = {
    "loss": "loss",
    **{
        f"{kind}/queries/{term}": f"{title}, {asked}"
        for kind, asked in (("loss", "text"), ("visual_loss", "visual prompts"))
        for term, title in (("classification", "classification"), ("l1", "L1"), ("giou", "GIoU"))
    },
    "data/left_out_categories": "categories that early fusion had no room for",
    "gradient_norm": "norm of the gradients",
    "resources/seconds_per_step": "seconds a step",
    "resources/images_per_second": "images a second",
    "resources/memory_gib": "peak memory, GiB",
}


def save_workspace(entity: str, project: str, group: str) -> str:
    """Save the workspace of the group's runs at W&B; returns its address.

    Raises:
        InputError: as `workspace`, the group has no runs there, or W&B did not take it.
    """
    try:
        # Lazy runs have no figures.
        runs = wandb.Api().runs(f"{entity}/{project}", filters={"group": group}, lazy=False)
        logged = {name for run in runs for name in dict(run.summary)}
    except (wandb.Error, OSError, ValueError) as error:
        raise _refused(error, "did not tell what the runs have logged") from error
    if not logged:
        raise InputError(
            f"{entity}/{project} has no run of the group {group}: upload the runs by `wandb sync`, or name another by "
            "--group"
        )
    board = workspace(entity, project, group, logged)
    try:
        board.save()
    except (wandb.Error, OSError, ValueError) as error:
        raise _refused(error, "did not take the workspace") from error
    return str(board.url)


def workspace(entity: str, project: str, group: str, logged: Collection[str]) -> ws.Workspace:
    """The workspace, not saved yet; every panel has a line or a bar for each cell and stage, the mean of its seeds.

    Args:
        entity: user or team.
        project: of the runs.
        group: of the runs.
        logged: names of all figures that the runs have.

    Raises:
        InputError: the library is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise InputError("a dashboard needs a further package: pip install 'trex2_lightning[dashboard]'") from error

    def curves(titles: dict[str, str]) -> list[Any]:
        return [
            wr.LinePlot(title=title, x=STEP, y=[name], groupby_rangefunc="stddev")
            for name, title in titles.items()
            if name in logged
        ]

    def bars(titles: dict[str, list[str]]) -> list[Any]:
        return [
            wr.BarPlot(title=title, metrics=[wr.SummaryMetric(name) for name in names])
            for title, names in titles.items()
        ]

    on_val = {name: name.removeprefix("val/") for name in sorted(logged) if _is_compared(name, "val")}
    on_test = {name.removeprefix("test/"): [name] for name in sorted(logged) if _is_compared(name, "test")}
    latency = {count: [f"latency/{count}/{step}" for step in Cost._fields] for count in VOCABULARIES}
    measured = {f"milliseconds, {count} names": names for count, names in latency.items() if {*names} <= {*logged}}
    sections = {
        "AP on val": curves(on_val),
        "AP on test": bars(on_test),
        **{title: bars(panels) for title, panels in _evaluations(logged).items()},
        "Latency": bars(measured),
        "Training": curves(TRAINING),
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Fusion and granularity",
        sections=[ws.Section(title, panels, is_open=True) for title, panels in sections.items() if panels],
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == group],
            # Of the stages, the second alone has visual steps.
            groupby=[ws.Config(key) for key in ("model.fusion", "model.granularity", "train.rhythm.visual")],
        ),
    )


def _is_compared(name: str, split: str) -> bool:
    own, _, figure = name.partition("/")
    return own == split and figure.split("/")[0] in COMPARED and figure.count("/") < 2  # else of an evaluation


def _evaluations(logged: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Figures by section, a metric of a data set, and panel, a protocol, in which every category group has a bar."""
    found: dict[str, dict[str, list[str]]] = {}
    for match in filter(None, map(LOGGED_FIGURE.fullmatch, sorted(logged))):
        what, metric, row, _ = match.groups()
        title = f"{COMPARED[metric]}, {what or 'test split'}"
        found.setdefault(title, {}).setdefault(row, []).append(match[0])
    return found


def _refused(error: Exception, what: str) -> InputError:
    return InputError(
        f"W&B {what} ({reason_of(error)}): log in by `wandb login`, and upload the runs by `wandb sync` first"
    )
