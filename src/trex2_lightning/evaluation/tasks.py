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
from trex2_lightning.evaluation.evaluate import check_split, evaluate, read_split, trained_protocols
from trex2_lightning.evaluation.finished import FinishedTasks
from trex2_lightning.evaluation.report import EvaluationReport
from trex2_lightning.prompting.protocol_names import FROM_REFERENCES
from trex2_lightning.training.module import DetectionModule

log = logging.getLogger(__name__)


def evaluate_tasks(
    config: Config,
    module: DetectionModule,
    split: Literal["val", "test"],
    protocols: Sequence[str] | None = None,
    folder: Path | None = None,
) -> dict[str, EvaluationReport]:
    """Evaluate the data sets of `eval.tasks` one after the other, each as `evaluate` does.

    What is done is kept in `folder`, from where an evaluation that was broken off goes on when it is called again; on
    several nodes, which may not have the same disks, it begins anew.

    Raises:
        InputError: a task lacks the file of its split, or of its references if prompts are made of them, or an image
            of its split cannot be read, or none has a box, which is seen before the first one begins; or as `evaluate`.
    """
    tasks = {name: _of_task(config, task) for name, task in _named(config).items()}
    wanted = [split, "reference"] if FROM_REFERENCES & set(trained_protocols(protocols, config, module)) else [split]
    named = [(own.data.root, getattr(own.data, each).annotations) for own in tasks.values() for each in wanted]
    files = dict.fromkeys(Path(root) / annotations for root, annotations in named if annotations)
    if missing := [str(file) for file in files if not is_there(file)]:
        raise InputError(
            f"{len(missing)} annotation files of the {len(tasks)} tasks are missing, such as {'; '.join(missing[:3])}: "
            "set data.root= to the benchmark's folder; the head of the benchmark's file says what lies there"
        )
    for name, own in tasks.items():  # else the last could end what the others have begun
        check_split(f"{name}: data.{split}", own, read_split(own, split)[1])
    reports = {}
    finished = FinishedTasks(folder, module, split, protocols) if folder and config.train.nodes == 1 else None
    for number, (name, own) in enumerate(tasks.items(), start=1):
        before = finished.report_of(name, own) if finished else None
        log.info("task %d of %d: %s%s", number, len(tasks), name, ", which was done before" * (before is not None))
        reports[name] = before or evaluate(own, module, split, protocols, is_checked=True)
        if finished and before is None:
            finished.keep(name, own, reports[name])
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
