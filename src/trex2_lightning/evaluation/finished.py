"""The tasks of a benchmark that are done, on disk: what an evaluation that was broken off goes on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from trex2_lightning.config import Config
from trex2_lightning.data.records import Records
from trex2_lightning.data.sampling.references import Support
from trex2_lightning.evaluation.reliability import Reliability, ReliabilityBin
from trex2_lightning.evaluation.report import FINISHED, Evaluation, EvaluationReport, write_task
from trex2_lightning.prompting.prompt_set import fingerprint
from trex2_lightning.training.module import DetectionModule


class FinishedTasks:
    """Keeps each report when its task is done; `write_evaluation` lets them go when all are.

    Args:
        folder: of the evaluation, with a folder for each task.
        module: what is evaluated.
        split: of the data sets.
        protocols: as they were asked for.
    """

    def __init__(self, folder: Path, module: DetectionModule, split: str, protocols: Sequence[str] | None) -> None:
        self._folder = folder
        calibration = {name: str(fit) for name, fit in module.detector.calibration.fits().items()}
        self._asked = [fingerprint(module.detector), calibration, split, protocols and [*protocols]]

    @rank_zero_only
    def keep(self, name: str, config: Config, report: EvaluationReport) -> None:
        """Write the files of a task, and what is needed to go on without it.

        Args:
            name: of the task.
            config: of the run, with the task's data.
            report: what was found.
        """
        write_task(report, self._folder / name)
        rows = {row: {**one._asdict(), "results": []} for row, one in report.rows.items()}
        values = {
            "asked": self._digest(config),
            "annotations": str(report.records.annotations),
            "rows": rows,
            "regions": report.regions,
            "left_out": report.left_out,
            "support": {str(count): own for count, own in report.support.items()},
        }
        (self._folder / name / FINISHED).write_text(json.dumps(values), encoding="utf-8")

    def report_of(self, name: str, config: Config) -> EvaluationReport | None:
        """What was kept of a task, without detections, where the same was asked for; else None."""
        try:
            values = json.loads((self._folder / name / FINISHED).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # half written
            return None
        if values["asked"] != self._digest(config):
            return None
        records = Records((), (), (), (), Path(values["annotations"]))
        support = {int(count): Support(*own) for count, own in values["support"].items()}
        rows = {row: _evaluation(own) for row, own in values["rows"].items()}
        left_out = (*values.get("left_out", ()),)
        return EvaluationReport(rows, values["regions"], records, support, left_out)

    def _digest(self, config: Config) -> str:
        asked = [self._asked, config.seed, asdict(config.data), asdict(config.eval), config.train.precision]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _evaluation(values: dict[str, Any]) -> Evaluation:
    kept = values["reliability"]
    bins = kept and Reliability(*([ReliabilityBin(*one) for one in part] for part in kept))
    return Evaluation(values["figures"], [], values["categories"], bins)
