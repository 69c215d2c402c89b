"""Benchmarks of many tasks (ODinW, Roboflow-100), each a data set with names of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from trex2_lightning.config import Config, SplitConfig, TaskConfig
from trex2_lightning.data.opening import is_there
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.report import EvaluationReport
from trex2_lightning.training.module import DetectionModule

log = logging.getLogger(__name__)


def evaluate_tasks(
    config: Config, module: DetectionModule, split: Literal["val", "test"], protocols: Sequence[str] | None = None
) -> dict[str, EvaluationReport]:
    """Evaluate the data sets of `eval.tasks` one after the other, each as `evaluate` does.

    Raises:
        InputError: the file of a task is missing, which is seen before the first one begins; or as `evaluate`.
    """
    tasks = {name: _of_task(config, task) for name, task in _named(config).items()}
    files = {name: Path(own.data.root) / getattr(own.data, split).annotations for name, own in tasks.items()}
    if missing := [str(file) for file in files.values() if not is_there(file)]:
        raise InputError(
            f"{len(missing)} of {len(tasks)} tasks have no annotation file, such as {'; '.join(missing[:3])}: "
            "set data.root= to the benchmark's folder"
        )
    reports = {}
    for number, (name, own) in enumerate(tasks.items(), start=1):
        log.info("task %d of %d: %s", number, len(tasks), name)
        reports[name] = evaluate(own, module, split, protocols)
    return reports


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
