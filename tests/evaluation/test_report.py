"""What an evaluation reports, and that pycocotools reads the same figures from what it writes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trex2_lightning.config import Config
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.report import Evaluation, EvaluationReport, by_group, write_results
from trex2_lightning.training.build import build_metric, build_module
from trex2_lightning.training.fit import train

TinyConfig = Callable[..., Config]


def test_generic_prompts_cannot_ask_for_a_category_without_reference(
    tiny_coco: Path, tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads((tiny_coco / "train.json").read_text())
    content["annotations"] = [item for item in content["annotations"] if item["category_id"] != 2]
    (tiny_coco / "train.json").write_text(json.dumps(content))
    config = tiny_config("eval.references=[2]", "data.num_workers=1", "train.rhythm.visual=1")
    with caplog.at_level(logging.WARNING, logger="trex2_lightning"):
        report = evaluate(config, build_module(config), "test", ["generic", "mixed"])
    assert [
        record.message for record in caplog.records if record.name == "trex2_lightning.evaluation.generic_prompts"
    ] == ["no reference image has green block: generic prompts cannot ask for it"]
    found = {row: {int(label) for result in report.rows[row].results for label in result.labels} for row in report.rows}
    assert found == {"generic_2": {0, 2}, "mixed": {0, 1, 2}}


def test_by_group_leaves_out_what_was_not_measured() -> None:
    figures = {"ap": 0.123456, "ap50": 0.5, "ap/seen": 0.25, "ap/novel": float("nan"), "ap50/seen": 0.75}
    assert by_group(figures) == {"all": 0.1235, "seen": 0.25}
    assert by_group(figures, "ap50") == {"all": 0.5, "seen": 0.75}


def test_pycocotools_reads_the_written_results_to_the_same_figures(
    tiny_coco: Path, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    file = tiny_coco / "test.json"
    truth = json.loads(file.read_text())
    for category, group in zip(truth["categories"], ("frequent", "rare", "novel"), strict=True):
        category |= {"group": group, "id": category["id"] * 10}
    for annotation in truth["annotations"]:
        annotation["category_id"] *= 10
    file.write_text(json.dumps(truth))
    config = tiny_config("train.max_steps=1", "eval.max_detections=60")
    report = evaluate(config, train(config), "test")
    nearly_right = [shifted(result, report) for result in report.rows["text"].results]
    metric = build_metric(config, report.records)
    metric.update(nearly_right)
    figures = metric.compute()
    write_results(report._replace(rows={"text": Evaluation(figures, nearly_right, {})}), tmp_path)

    assert 0.1 < figures["ap"] < 0.95
    counted = {"ap": [10, 20, 30], "ap/frequent": [10], "ap/rare": [20], "ap/novel": [30], "ap/seen": [10, 20]}
    for name, categories in counted.items():
        assert coco_ap(file, tmp_path / "results_text.json", categories) == pytest.approx(
            figures[name], abs=1e-6, nan_ok=True
        )


def shifted(result: Any, report: EvaluationReport) -> Any:
    """The true boxes, moved by a tenth of their size, in front of the detections."""
    [record] = [image for image in report.records.images if image.id == result.image_id]
    width_height = (record.boxes[:, 2:] - record.boxes[:, :2]).repeat(1, 2)
    return result._replace(
        boxes=torch.cat([record.boxes + 0.1 * width_height, result.boxes]),
        scores=torch.cat([torch.full((len(record.boxes),), 0.9), result.scores]),
        labels=torch.cat([record.labels, result.labels]),
    )


def coco_ap(truth: Path, results: Path, categories: list[int]) -> float:
    ground_truth = COCO(str(truth))
    evaluation = COCOeval(ground_truth, ground_truth.loadRes(str(results)), "bbox")
    evaluation.params.catIds = categories
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return float(precision[precision > -1].mean()) if (precision > -1).any() else float("nan")
