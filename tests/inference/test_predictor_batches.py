"""A list of images is a batch; thresholds of single categories; boxes of one category that overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from predictor_parts import BOX, PHRASES
from torchvision.ops import box_iou

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.models.calibration import SOURCES
from trex2_lightning.prompting.finding import Found
from trex2_lightning.prompting.prompt_set import join
from trex2_lightning.structures import Detection
from trex2_lightning.training.build import build_module


def same(one: Sequence[Detection], other: Sequence[Detection]) -> bool:
    """Within rounding, by which scores that are nearly the same change places."""
    scores, boxes = ([torch.tensor([d[i] for d in found]) for found in (one, other)] for i in (1, 2))
    return (
        len(one) == len(other) and torch.allclose(*scores, atol=1e-4) and bool((box_iou(*boxes).amax(1) > 0.99).all())
    )


@pytest.mark.parametrize("appearance", ["none", "backbone"])
def test_a_batch_finds_what_single_images_have(
    tiny_config: Callable[..., Config], images: list[Path], appearance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of four images are padded to one size."""
    images = [*images, images[0].with_name("turned.jpg")]
    with Image.open(images[0]) as picture:
        picture.rotate(90, expand=True).save(images[3])
    torch.manual_seed(0)
    config = tiny_config("train.rhythm.visual=1", *["model.appearance.name=backbone"] * (appearance == "backbone"))
    predictor = Predictor(config, build_module(config))
    prompts = join(predictor.text(PHRASES), predictor.generic([(images[0], {"cell": [BOX]})]))
    single = [predictor.detect(image, prompts, threshold=0.0) for image in images]
    passes = []
    monkeypatch.setattr(
        predictor, "see", lambda images: passes.append(len(images.sizes)) or Predictor.see(predictor, images)
    )
    batch = predictor.detect(images, prompts, threshold=0.0)
    assert len(batch) == sum(passes) == 4
    assert max(passes) > 1 < len(passes)
    assert all(same(one, other) for one, other in zip(batch, single, strict=True))
    assert not same(batch[0], single[1])
    assert predictor.detect([], prompts) == []


def test_a_category_may_have_a_threshold_of_its_own(predictor: Predictor, image: Path) -> None:
    prompts = predictor.text(PHRASES)
    found = predictor.detect(image, prompts, threshold=0.0)
    reds = [d for d in found if d.name == "red block"]
    limit = reds[len(reds) // 2].score
    kept = predictor.detect(image, prompts, threshold={"red block": limit, "green block": 0.0, "blue block": 1.0})
    assert kept == [d for d in found if d.name == "green block" or (d.name == "red block" and d.score >= limit)]
    with pytest.raises(InputError, match="the threshold of 'pink block' is for none of the categories red block, "):
        predictor.detect(image, prompts, threshold={"pink block": 0.5})


def test_each_kind_of_prompt_keeps_what_reaches_its_own_threshold(predictor: Predictor, image: Path) -> None:
    """All asked for at once, each with a threshold that only some of its boxes reach."""
    reference = [(image, {"cell": [BOX]})]
    parts = {
        "text": predictor.text("red block"),
        "interactive": predictor.interactive(image, {"own": [BOX]}),
        "generic": predictor.generic(reference),
        "mixed": predictor.mixed("half", [(image, {"half": [BOX]})]),
    }
    prompts = join(*parts.values())
    everything = predictor.detect(image, prompts, threshold=0.0)
    expected = []
    for number, (source, part) in enumerate(parts.items(), start=1):
        own = sorted((d for d in everything if d.name == part.names[0]), key=lambda d: d.score, reverse=True)
        place = min(number * 2, len(own) - 1)
        predictor.module.detector.calibration.threshold[0, SOURCES.index(source)] = own[place].score  # type: ignore[arg-type]
        expected += [d for d in own if d.score >= own[place].score]
    kept = predictor.detect(image, prompts)
    assert sorted(kept, key=str) == sorted(expected, key=str)
    assert len({d.name for d in kept}) == 4 < len(kept) < len(everything)


def test_a_category_without_one_keeps_the_checkpoint_s(predictor: Predictor, image: Path) -> None:
    prompts = predictor.text(PHRASES)
    predictor.module.detector.calibration.threshold.fill_(0.0)
    everything = predictor.detect(image, prompts)
    kept = predictor.detect(image, prompts, threshold={"red block": 1.0})
    assert kept == [d for d in everything if d.name != "red block"]
    assert kept


def test_where_nothing_is_found_the_best_score_is_said_once(
    predictor: Predictor, images: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (predictor.text(PHRASES[:number]) for number in (1, 2))
    best = max(predictor.detect(image, first, threshold=0.0)[0].score for image in images)
    assert predictor.detect(images, first, threshold=best)
    assert not caplog.records
    for _ in range(2):
        assert predictor.detect(images, first, threshold=0.999) == [[]] * len(images)
    assert predictor.detect(images[0], second, threshold=0.999) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert f"; the best score is {best:.3g}, of 'red block': a lower threshold finds it" in caplog.messages[0]


def test_overlapping_boxes_go_within_their_category_alone(
    predictor: Predictor, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two boxes of IoU 0.6 and one beside them; the second is the best of the other category."""
    boxes = torch.tensor([[0.25, 0.25, 0.4, 0.4], [0.35, 0.25, 0.4, 0.4], [0.75, 0.75, 0.4, 0.4]])
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.7], [0.6, 0.05]])
    monkeypatch.setattr("trex2_lightning.inference.search.find_objects", lambda *_: Found(scores[None], boxes[None]))
    prompts, features = predictor.text(("cell", "dust")), predictor.encode(image).features

    def found(nms: float | None) -> list[tuple[str, float]]:
        [detections] = predictor.search(prompts, 0.5, nms=nms)(features, torch.tensor([[100, 200]]))
        return [(detection.name, round(detection.score, 2)) for detection in detections]

    assert found(None) == found(0.61) == [("cell", 0.9), ("cell", 0.8), ("dust", 0.7), ("cell", 0.6)]
    assert found(0.59) == [("cell", 0.9), ("dust", 0.7), ("cell", 0.6)]


def test_what_pads_a_shorter_list_of_boxes_is_not_found(
    predictor: Predictor, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of a batch keep different numbers of boxes; whatever score is asked for, padding has none."""
    boxes, scores = torch.full((1, 2, 4), 0.5), torch.tensor([[[0.5, 0.25], [0.0, 0.0]]])
    monkeypatch.setattr("trex2_lightning.inference.search.find_objects", lambda *_: Found(scores, boxes))
    prompts, features = predictor.text(("cell", "dust")), predictor.encode(image).features
    [found] = predictor.search(prompts, 0.0)(features, torch.tensor([[100, 200]]))
    assert [(detection.name, detection.score) for detection in found] == [("cell", 0.5), ("dust", 0.25)]
