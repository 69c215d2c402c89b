"""Benchmarks of many tasks (ODinW, Roboflow-100), each a data set with names of its own, and what is written of any."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal

from trex2_lightning import build, run
from trex2_lightning.config import Config, SplitConfig, TaskConfig
from trex2_lightning.errors import InputError
from trex2_lightning.module import DetectionModule
from trex2_lightning.run import Report

log = logging.getLogger(__name__)

Summary = dict[str, dict[str, dict[str, float]]]  # metric, row, group


def evaluate_tasks(
    config: Config, module: DetectionModule, split: Literal["val", "test"], protocols: Sequence[str] | None = None
) -> dict[str, Report]:
    """Evaluate the data sets of `eval.tasks` one after the other, each as `run.evaluate` does.

    Raises:
        InputError: the file of a task is missing, which is seen before the first one begins; or as `run.evaluate`.
    """
    tasks = {name: _of_task(config, task) for name, task in _named(config).items()}
    files = {name: Path(own.data.root) / getattr(own.data, split).annotations for name, own in tasks.items()}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise InputError(
            f"{len(missing)} of {len(tasks)} tasks have no annotation file, such as {'; '.join(missing[:3])}: "
            "set data.root= to the benchmark's folder"
        )
    reports = {}
    for number, (name, own) in enumerate(tasks.items(), start=1):
        log.info("task %d of %d: %s", number, len(tasks), name)
        reports[name] = run.evaluate(own, module, split, protocols)
    return reports


def summarize(reports: dict[str, Report]) -> Summary:
    """Over all tasks that have the row and the figure: `{metric: {row: {"mean": ..., "median": ...}}}`."""
    values: dict[str, dict[str, list[float]]] = {}
    for report in reports.values():
        for metric, rows in report.summary().items():
            for row, groups in rows.items():
                values.setdefault(metric, {}).setdefault(row, []).append(groups["all"])
    return {
        metric: {row: {"mean": mean(own), "median": median(own)} for row, own in rows.items()}
        for metric, rows in values.items()
    }


def by_task(reports: dict[str, Report], metric: str) -> Summary:
    """`{metric: {task: {row: value}}}`, for a table with a line for every task."""
    rows = {name: report.summary().get(metric, {}) for name, report in reports.items()}
    return {metric: {name: {row: groups["all"] for row, groups in own.items()} for name, own in rows.items()}}


def write(reports: dict[str, Report], folder: Path, about: dict[str, Any]) -> None:
    """Write `evaluation.json`: `about`, the figures, those of each category and task; and each row's detections.

    Args:
        reports: of tasks by name, or of a single data set, whose name is "".
        folder: to write to; a task's detections go into a folder of its name.
        about: what was evaluated.
    """
    for name, report in reports.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        run.write_results(report, folder / name)
    if "" in reports:
        figures: dict[str, Any] = {"ground_truth": str(reports[""].records.annotations), **_in_full(reports[""])}
    else:
        tasks = {name: _in_full(report) for name, report in reports.items()}
        figures = {"num_tasks": len(reports), **summarize(reports), "tasks": tasks}
    (folder / "evaluation.json").write_text(json.dumps(about | figures, indent=2) + "\n")


def log_summary(config: Config, folder: Path, summary: Summary) -> None:
    """Log the figures to W&B, unless it is disabled, as `METRIC/ROW/GROUP`."""
    if config.logging.wandb == "disabled":
        return
    own = replace(config, logging=replace(config.logging, job_type="evaluation"))
    logger = build.wandb_logger(own, folder)
    logger.log_metrics(
        {
            f"{metric}/{row}/{group}": value
            for metric, rows in summary.items()
            for row, groups in rows.items()
            for group, value in groups.items()
        }
    )
    logger.finalize("success")


def _in_full(report: Report) -> dict[str, Any]:
    """The summary, and AP by row and category name."""
    rows = {row: evaluation.categories for row, evaluation in report.rows.items()}
    categories = {row: {name: round(ap, 4) for name, ap in own.items()} for row, own in rows.items()}
    return {**report.summary(), "categories": categories}


def _named(config: Config) -> dict[str, TaskConfig]:
    tasks = dict(config.eval.tasks)
    every = tasks.pop("*", None)
    if every is not None:
        root = Path(config.data.root)
        folders = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        if not folders:
            raise InputError(f"{root}: has no folders of tasks; set data.root= to the benchmark's folder")
        tasks |= {name: replace(every, folder=name) for name in folders}
    return {name: replace(task, folder=task.folder or name) for name, task in tasks.items()}


def _of_task(config: Config, task: TaskConfig) -> Config:
    data = config.data
    own = replace(
        data,
        root=str(Path(data.root) / task.folder),
        val=_said(task.val, data.val),
        test=_said(task.test, data.test),
        reference=_said(task.reference, data.reference),
    )
    return replace(config, data=own)


def _said(own: SplitConfig, common: SplitConfig) -> SplitConfig:
    return own if own.annotations else common
