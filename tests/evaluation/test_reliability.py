"""Whether scores keep what they promise: on paper, and in what an evaluation writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trex2_lightning.commands.evaluate import main as evaluate_command
from trex2_lightning.config import Config
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.evaluation import fits
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.reliability import Reliability, ReliabilityBin, calibration_error, reliability
from trex2_lightning.evaluation.report import log_summary
from trex2_lightning.metrics.detection import ImageResult
from trex2_lightning.models.calibration import SOURCES
from trex2_lightning.training import trainer
from trex2_lightning.training.checkpoint import load_checkpoint

HERE, THERE, CROWD = [10.0, 10.0, 30.0, 30.0], [60.0, 60.0, 90.0, 90.0], [100.0, 0.0, 200.0, 100.0]


def picture(image_id: int, judged: Tensor | None = None) -> ImageRecord:
    """An object of category 0, one of category 1, and a crowd of category 0."""
    boxes, labels = torch.tensor([HERE, THERE, CROWD]), torch.tensor([0, 1, 0])
    crowd = torch.tensor([False, False, True])
    return ImageRecord(image_id, Path("a.jpg"), 200, 100, boxes, labels, crowd, torch.ones(3), judged)


def found(image_id: int, *detections: tuple[list[float], float, int], unfitted: Tensor | None = None) -> ImageResult:
    boxes, scores, labels = (list(values) for values in zip(*detections, strict=True))
    return ImageResult(image_id, torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), unfitted)


def test_the_error_is_how_far_the_share_that_is_right_is_from_the_score() -> None:
    images = {number: picture(number) for number in range(10)}
    results = [found(number, (HERE if number < 7 else THERE, 0.72, 0)) for number in range(10)]
    results += [found(number, (THERE, 0.31, 1)) for number in range(5)]
    kept = reliability(results, images, 2)
    assert kept.scores == [
        ReliabilityBin(pytest.approx(0.31), 1.0, 5),  # type: ignore[arg-type]
        ReliabilityBin(pytest.approx(0.72), 0.7, 10),  # type: ignore[arg-type]
    ]
    assert kept.unfitted == []
    assert kept.figures() == {"calibration_error": pytest.approx((5 * 0.69 + 10 * 0.02) / 15)}
    assert calibration_error([]) != calibration_error([]), "of nothing it is no number"


def test_a_duplicate_and_another_s_category_are_wrong() -> None:
    close = [11.0, 10.0, 30.0, 30.0]
    result = found(1, (HERE, 0.95, 0), (close, 0.85, 0), (HERE, 0.75, 1), (THERE, 1.0, 1))
    kept = reliability([result], {1: picture(1)}, 2)
    assert [(round(one.score, 2), one.right, one.num) for one in kept.scores] == [
        *((0.75, 0.0, 1), (0.85, 0.0, 1), (0.97, 1.0, 2))
    ]


def test_what_nobody_can_judge_or_looks_at_does_not_count() -> None:
    crowded, low, elsewhere = ([105.0, 0.0, 195.0, 100.0], 0.9, 0), ([0.0, 0.0, 9.0, 9.0], 0.04, 0), THERE
    result = found(1, crowded, low, (elsewhere, 0.6, 2), (HERE, 0.6, 0))
    assert reliability([result], {1: picture(1, torch.tensor([0, 1]))}, 3).scores == [(pytest.approx(0.6), 1.0, 1)]
    assert reliability([result], {1: picture(1)}, 3).scores == [(pytest.approx(0.6), 0.5, 2)]
    nothing = reliability([found(1, low)], {1: picture(1)}, 3)
    assert nothing.scores == []


def test_before_the_fit_other_detections_had_the_best_score() -> None:
    close = [11.0, 10.0, 30.0, 30.0]
    unfitted = torch.tensor([0.45, 0.55, 0.01])
    result = found(1, (HERE, 0.95, 0), (close, 0.85, 0), (THERE, 0.9, 1), unfitted=unfitted)
    kept = reliability([result], {1: picture(1)}, 2)
    assert [(round(one.score, 2), one.right, one.num) for one in kept.unfitted] == [(0.45, 0.0, 1), (0.55, 1.0, 1)]
    assert kept.figures()["calibration_error_unfitted"] == pytest.approx(0.45)


def test_an_evaluation_tells_both_and_draws_them(
    visual_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "RIGHT", 0.01)  # of random weights
    config, module = load_checkpoint(visual_checkpoint)
    untouched = evaluate(config, module, "test", ["interactive_box"]).rows["interactive_box"]
    assert untouched.reliability is not None
    assert untouched.reliability.unfitted == []
    assert "calibration_error_unfitted" not in untouched.figures
    saved = torch.load(visual_checkpoint, weights_only=True)
    saved["calibration"] = module.detector.calibration.fits() | {"bias": torch.full((2, 5), 2.0)}
    torch.save(saved, visual_checkpoint)
    protocols = ("--protocol", "text", "--protocol", "interactive_box")
    evaluate_command(["--ckpt", str(visual_checkpoint), *protocols, "--output", str(tmp_path / "out")])
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    bins = content["reliability"]["interactive_box"]
    assert bins["unfitted"] == [
        [round(one.score, 4), round(one.right, 4), one.num] for one in untouched.reliability.scores
    ]
    for kind, figure in (("scores", "calibration_error"), ("unfitted", "calibration_error_unfitted")):
        expected = calibration_error([ReliabilityBin(*one) for one in bins[kind]])
        assert content[figure]["interactive_box"]["all"] == pytest.approx(expected, abs=2e-4)
    assert bins["scores"][-1][0] > bins["unfitted"][-1][0], "all have gained"
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"reliability.png", "reliability_unfitted.png"}


def test_an_evaluation_tells_in_how_many_images_a_prompt_reaches_its_threshold(visual_checkpoint: Path) -> None:
    config, module = load_checkpoint(visual_checkpoint)
    rows = ["text", "foreign_phrases", "interactive_box"]
    found = evaluate(config, module, "test", rows).rows
    best = {row: sorted(max(result.scores.tolist(), default=0) for result in found[row].results) for row in rows}
    least = {"text": best["foreign_phrases"][-1] + 1e-6, "interactive": best["interactive_box"][-1]}
    for source, threshold in least.items():
        module.detector.calibration.threshold[0, SOURCES.index(source)] = threshold
    rates = {row: one.figures["positive_rate"] for row, one in evaluate(config, module, "test", rows).rows.items()}
    above = sum(score >= least["text"] for score in best["text"])
    assert rates["text"] == pytest.approx(above / len(best["text"]))
    assert rates["foreign_phrases"] == 0
    assert rates["interactive_box"] == pytest.approx(1 / len(best["interactive_box"])), "the best image alone"


def test_without_boxes_there_is_nothing_to_judge_by(
    checkpoint: Path, tiny_coco: Path, tiny_config: Callable[..., Config]
) -> None:
    file = tiny_coco / "test.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    config, module = load_checkpoint(checkpoint)
    report = evaluate(config, module, "test", ["text"], is_checked=True)  # as of images that are only counted
    assert report.reliability() == {}
    assert "calibration_error" not in report.rows["text"].figures


def test_w_and_b_has_the_bins_as_a_table(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[tuple[object, ...]] = []

    class Logger:
        experiment = type("Run", (), {"finish": staticmethod(lambda: None)})

        def __init__(self, **_: object) -> None: ...

        def log_metrics(self, _: object) -> None: ...

        def log_table(self, *content: object) -> None:
            tables.append(content)

    monkeypatch.setattr(trainer, "WandbLogger", Logger)
    trust = {"text": Reliability([ReliabilityBin(0.25, 0.5, 4)], [ReliabilityBin(0.75, 0.5, 4)])}
    log_summary(tiny_config("logging.wandb=offline"), tmp_path, {}, "lvis_val", trust)
    head = ["prompt", "scores", "mean score", "share right", "count"]
    assert tables == [
        ("lvis_val/reliability", head, [["text", "scores", 0.25, 0.5, 4], ["text", "unfitted", 0.75, 0.5, 4]])
    ]
