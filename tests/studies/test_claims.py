"""What the tests of the claims ask and count, on hand-made detections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trex2_lightning.config import Config, load
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.data.sampling.collate import pad
from trex2_lightning.data.shapes.layout import categories
from trex2_lightning.evaluation.report import Evaluation, EvaluationReport
from trex2_lightning.metrics.detection import ImageResult
from trex2_lightning.models.build import build_detector, build_text_encoder
from trex2_lightning.structures import Batch, Prompts
from trex2_lightning.studies import claims

TINY = Path(__file__).parents[1] / "tiny.yaml"
BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30], [20, 20, 30, 30]])
ELSEWHERE = torch.tensor([50.0, 50, 60, 60])


def shapes_config() -> Config:
    return load(TINY, ["data.format=shapes", "model.max_tokens=512"])


def record(image_id: int) -> ImageRecord:
    count = len(BOXES)
    crowd, area = torch.zeros(count, dtype=torch.bool), torch.full((count,), 100.0)
    return ImageRecord(image_id, Path("x.jpg"), 64, 64, BOXES, torch.arange(count), crowd, area)


def result(image_id: int, *found: tuple[Tensor, float, int]) -> ImageResult:
    boxes, scores, labels = zip(*found, strict=True)
    return ImageResult(image_id, torch.stack(boxes), torch.tensor(scores), torch.tensor(labels))


def test_relations_count_the_best_box_of_each_phrase(monkeypatch: pytest.MonkeyPatch) -> None:
    results = [
        result(
            1,
            *((BOXES[0], 0.9, 0), (BOXES[1], 0.8, 0)),  # right, though another one is found too
            *((BOXES[0], 0.3, 1), (BOXES[1], 0.2, 1)),  # the best is a lookalike
            (BOXES[2] + 1, 0.1, 2),  # right, a little beside: IoU 81 / 119
            (ELSEWHERE, 0.5, 3),  # nothing there
        ),
        result(2, (BOXES[3], 0.9, 3)),  # the other phrases have found nothing at all
    ]
    records = Records([record(1), record(2)], tuple("abcd"), (1, 2, 3, 4), ("",) * 4, Path("relations.json"))
    asked: list[Any] = []

    def evaluate(config: Config, _module: object, split: str, protocols: list[str]) -> EvaluationReport:
        asked.append((config.data.test.annotations, config.data.test.images, split, protocols))
        return EvaluationReport({"hinted_text": Evaluation({"ap": 0.25}, results, {})}, {}, records)

    monkeypatch.setattr(claims, "evaluate", evaluate)
    found = claims.relations(shapes_config(), None)  # type: ignore[arg-type]
    assert asked == [("relations.json", "relations", "test", ["hinted_text"])]
    assert found == {"target": 3 / 8, "lookalike": 1 / 8, "ap": 0.25}


def test_the_same_ten_categories_are_watched_whatever_else_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    known = categories("easy")
    asked: dict[str, list[int]] = {}

    def evaluate(_config: Config, _module: object, _split: str, protocols: dict[str, claims.Some]) -> EvaluationReport:
        asked.update({row: some.wanted.tolist() for row, some in protocols.items()})
        watched = {known[i].name for i in asked["0"]}
        rows = {
            row: Evaluation({}, [], {one.name: 0.1 * n if one.name in watched else 0.9 for one in known})
            for n, row in enumerate(protocols)
        }
        return EvaluationReport(rows, {}, Records([], (), (), (), Path()))

    monkeypatch.setattr(claims, "evaluate", evaluate)
    found = claims.interference(shapes_config(), None)  # type: ignore[arg-type]
    assert found == {"0": 0.0, "20": 0.1, "70": 0.2}
    assert [len(set(wanted)) for wanted in asked.values()] == [10, 30, 80]
    assert {known[i].group for i in asked["0"]} == {"frequent"}
    assert set(asked["0"]) < set(asked["20"]) < set(asked["70"])


@pytest.mark.parametrize("granularity", ["phrase", "word"])
@pytest.mark.parametrize("fusion", ["late", "early"])
def test_some_names_are_asked_for_as_if_there_were_no_others(granularity: str, fusion: str) -> None:
    config = load(TINY, [f"model.granularity={granularity}", f"model.fusion={fusion}"])
    detector = build_detector(config.model).eval()
    images = pad([torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))], [(64, 64)])
    names = ("red star", "blue ring", "green moon", "flag")
    with torch.no_grad():
        features = detector.encode_image(images)
        some = claims.Some([2, 0])(detector, Batch(images, Prompts(names), ()), features)
        chosen = detector.decode(features, some).queries
        alone = detector.encode_prompts(Prompts((names[0], names[2])))
        expected = detector.decode(features, alone).queries
    kept = [detector_tokens(tokens.category, label) for tokens, label in ((some, 2), (alone, 1))]
    torch.testing.assert_close(chosen.boxes, expected.boxes, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(chosen.logits[..., kept[0]], expected.logits[..., kept[1]], atol=1e-4, rtol=1e-4)


def detector_tokens(category: Tensor, label: int) -> Tensor:
    return (category == label).nonzero()[:, 0]


def test_lengthened_names_fit_the_text_encoders_of_all_cells() -> None:
    config = load(Path(__file__).parents[2] / "experiments" / "ablation" / "word_early.yaml")
    encoder = build_text_encoder(config.model)
    for preset in ("easy", "hard"):
        names = [category.name for category in categories(preset)]
        for form in claims.NAME_FORMS:
            encoder.rows(tuple(form.format(name) for name in names))  # raises where one is too long
