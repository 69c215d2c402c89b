"""What an evaluation found: its figures by row and group, and what is written of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from types import MappingProxyType
from typing import Any, NamedTuple

from trex2_lightning.config import Config
from trex2_lightning.data.records import Records
from trex2_lightning.data.sampling.references import Support
from trex2_lightning.evaluation.reliability import Reliability, write_reliability
from trex2_lightning.metrics.detection import ImageResult, coco_results
from trex2_lightning.training.trainer import finish_wandb, wandb_logger

FINISHED = "finished.json"  # of a task, while others are still to come
Summary = dict[str, dict[str, dict[str, float]]]  # metric, row, group


class Evaluation(NamedTuple):
    """What one protocol found."""

    figures: dict[str, float]  # as the `compute` of the metric gives them
    results: list[ImageResult]
    categories: dict[str, float]  # AP by name, of categories with ground truth
    reliability: Reliability | None = None  # of its scores; None where there are no boxes to judge by


class EvaluationReport(NamedTuple):
    """What an evaluation found."""

    rows: dict[str, Evaluation]  # by protocol; Visual-G has one row for each number of references
    regions: dict[str, float]  # as `RegionAccuracy.compute` gives them; empty where regions were not classified
    records: Records  # the ground truth
    support: Mapping[int, Support] = MappingProxyType({})  # by images per category; empty without generic prompts
    left_out: tuple[str, ...] = ()  # images that the figures are without, as they could not be read any more

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """`{metric: {row: {group: value}}}` with the metrics of `eval.metric` and, of regions, `top1`, `top5`."""
        figures = {row: evaluation.figures for row, evaluation in self.rows.items()}
        if self.regions:
            figures["region_classification"] = self.regions
        measured: dict[str, dict[str, dict[str, float]]] = {}
        for row, own in figures.items():
            for metric in dict.fromkeys(name.split("/")[0] for name in own):
                if values := by_group(own, metric):
                    measured.setdefault(metric, {})[row] = values
        return measured

    def reliability(self) -> dict[str, Reliability]:
        """Of the scores of each row, where there are boxes to judge by."""
        return {row: one.reliability for row, one in self.rows.items() if one.reliability is not None}


def by_group(figures: dict[str, float], metric: str = "ap") -> dict[str, float]:
    """`ap` of all categories and `ap/GROUP` of the groups as `{"all": ..., GROUP: ...}`, NaN left out."""
    prefix = f"{metric}/"
    rows = {"all": figures[metric]} | {
        name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)
    }
    return {name: round(value, 4) for name, value in rows.items() if value == value}


def summarize(reports: dict[str, EvaluationReport]) -> Summary:
    """Over all tasks that have the row and the figure: `{metric: {row: {"mean": ..., "median": ...}}}`.

    A group of categories has a row of its own, `ROW/GROUP`.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for report in reports.values():
        for metric, rows in report.summary().items():
            for row, value in _by_row(rows).items():
                values.setdefault(metric, {}).setdefault(row, []).append(value)
    return {
        metric: {row: {"mean": mean(own), "median": median(own)} for row, own in rows.items()}
        for metric, rows in values.items()
    }


def by_task(reports: dict[str, EvaluationReport], metric: str) -> Summary:
    """`{metric: {task: {row: value}}}` with the rows of `summarize`, for a table with a line for every task."""
    rows = {name: report.summary().get(metric, {}) for name, report in reports.items()}
    return {metric: {name: _by_row(own) for name, own in rows.items()}}


def write_evaluation(reports: dict[str, EvaluationReport], folder: Path, about: dict[str, Any]) -> None:
    """Write `evaluation.json`: `about`, the figures, those of each category and task; and each row's detections.

    And how far their scores can be trusted: numbers in the file, and `reliability.png`.

    Args:
        reports: of tasks by name, or of a single data set, whose name is "".
        folder: to write to; a task's detections go into a folder of its name.
        about: what was evaluated.
    """
    for name, report in reports.items():
        if not (folder / name / FINISHED).is_file():  # else they were written when the task was done
            write_task(report, folder / name)
    if "" in reports:
        figures: dict[str, Any] = {"ground_truth": str(reports[""].records.annotations), **_in_full(reports[""])}
    else:
        tasks = {name: _in_full(report) for name, report in reports.items()}
        figures = {"num_tasks": len(reports), **summarize(reports), "tasks": tasks}
    (folder / "evaluation.json").write_text(json.dumps(about | figures, indent=2) + "\n", encoding="utf-8")
    for name in reports:
        (folder / name / FINISHED).unlink(missing_ok=True)


def write_task(report: EvaluationReport, folder: Path) -> None:
    """Write the detections of one data set, and how far their scores can be trusted."""
    folder.mkdir(parents=True, exist_ok=True)
    write_results(report, folder)
    write_reliability(report.reliability(), folder)


def write_results(report: EvaluationReport, folder: Path) -> None:
    """Write the detections of each row as a COCO results file, `results_ROW.json`, which pycocotools reads."""
    for row, evaluation in report.rows.items():
        results = coco_results(evaluation.results, report.records.category_ids)
        (folder / f"results_{row}.json").write_text(json.dumps(results), encoding="utf-8")


def log_summary(
    config: Config, folder: Path, summary: Summary, what: str = "", trust: Mapping[str, Reliability] | None = None
) -> None:
    """Log the figures to W&B, unless it is disabled, as `METRIC/ROW/GROUP`.

    Args:
        config: of the run.
        folder: for W&B's files.
        summary: the figures.
        what: was evaluated, such as `lvis_minival`, which then stands before each figure; "": the run's own test split.
        trust: how far the scores of each row can be trusted, which becomes the table `reliability`.
    """
    if config.logging.wandb == "disabled":
        return
    own = replace(config, logging=replace(config.logging, job_type="evaluation"))
    logger = wandb_logger(own, folder)
    prefix = f"{what}/" if what else ""  # else a panel would show the mean over data sets
    logger.log_metrics(
        {
            f"{prefix}{metric}/{row}/{group}": value
            for metric, rows in summary.items()
            for row, groups in rows.items()
            for group, value in groups.items()
        }
    )
    if trust:
        lines = [[row, *line] for row, one in trust.items() for line in one.table()]
        logger.log_table(f"{prefix}reliability", ["prompt", "scores", "mean score", "share right", "count"], lines)
    finish_wandb([logger])


def _by_row(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """The figure of all categories as `ROW`, that of a group as `ROW/GROUP`."""
    return {
        row if group == "all" else f"{row}/{group}": value
        for row, groups in rows.items()
        for group, value in groups.items()
    }


def _in_full(report: EvaluationReport) -> dict[str, Any]:
    """The summary, and by row AP of each category's name and `[mean score, share that is right, count]` of bins; and
    what generic prompts were made of.
    """
    rows = {row: evaluation.categories for row, evaluation in report.rows.items()}
    categories = {row: {name: round(ap, 4) for name, ap in own.items()} for row, own in rows.items()}
    trust: dict[str, dict[str, list[list[float]]]] = {}
    for row, one in report.reliability().items():
        for scores, *values in one.table():
            trust.setdefault(row, {}).setdefault(scores, []).append(values)
    support = {str(count): own._asdict() for count, own in report.support.items()}
    known: dict[str, Any] = {"references": support} if support else {}
    known |= {"left_out": [*report.left_out]} if report.left_out else {}
    return {**report.summary(), "categories": categories, "reliability": trust, **known}
