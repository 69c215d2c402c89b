"""Prediction on one image file, from a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trex2_lightning import build, run
from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.predict import Detection, Predictor, write_prediction

PHRASES = ("red block", "green block", "blue block")


@pytest.fixture
def config(tiny_config: Callable[..., Config]) -> Config:
    return tiny_config()


@pytest.fixture
def predictor(config: Config) -> Predictor:
    torch.manual_seed(0)
    return Predictor(config, build.module(config))


@pytest.fixture
def image(tiny_coco: Path) -> Path:
    return tiny_coco / "test" / "1.jpg"


def test_detections_are_those_of_the_evaluation(predictor: Predictor, config: Config, image: Path) -> None:
    result = run.evaluate(config, predictor.module, "test").results[0]
    detections = predictor(image, PHRASES, threshold=0.0)
    assert [detection.phrase for detection in detections] == [PHRASES[label] for label in result.labels]
    torch.testing.assert_close(torch.tensor([d.score for d in detections]), result.scores, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(torch.tensor([d.box for d in detections]), result.boxes, rtol=1e-3, atol=0.5)


def test_boxes_lie_in_the_image_and_the_best_comes_first(predictor: Predictor, image: Path) -> None:
    detections = predictor(image, PHRASES, threshold=0.0)
    with Image.open(image) as picture:
        width, height = picture.size
    assert len(detections) == 20 * len(PHRASES)
    assert all(0 <= d.box[0] <= d.box[2] <= width and 0 <= d.box[1] <= d.box[3] <= height for d in detections)
    assert max(d.box[2] for d in detections) > 1  # pixels, not shares
    assert detections == sorted(detections, key=lambda detection: -detection.score)


def test_the_threshold_is_the_lowest_score_that_is_kept(predictor: Predictor, image: Path) -> None:
    everything = predictor(image, PHRASES, threshold=0.0)
    limit = everything[5].score
    kept = predictor(image, PHRASES, threshold=limit)
    assert kept == [detection for detection in everything if detection.score >= limit]
    assert 6 <= len(kept) < len(everything)


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        (("red block", "red block"), "a phrase was given twice"),
        (("red block", " "), "a phrase is empty"),
        (("word " * 30,), "has 32 tokens"),
    ],
)
def test_phrases_that_cannot_be_asked_for(
    predictor: Predictor, image: Path, phrases: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        predictor(image, phrases)


def test_an_unreadable_image_is_named(predictor: Predictor, image: Path, tmp_path: Path) -> None:
    (tmp_path / "half.jpg").write_bytes(image.read_bytes()[:300])
    with pytest.raises(InputError, match=r"half\.jpg: cannot be read"):
        predictor(tmp_path / "half.jpg", PHRASES)
    with pytest.raises(InputError, match=r"gone\.jpg: no such image file"):
        predictor(tmp_path / "gone.jpg", PHRASES)


def test_a_checkpoint_gives_the_predictor_of_its_run(config: Config, image: Path) -> None:
    trained = run.train(config)
    loaded = Predictor.from_checkpoint(config.folder / "checkpoints" / "last.ckpt")
    assert loaded(image, PHRASES, threshold=0.0) == Predictor(config, trained)(image, PHRASES, threshold=0.0)


def test_the_picture_and_the_values_are_written(image: Path, tmp_path: Path) -> None:
    detections = [Detection("red block", 0.75, (5.0, 6.0, 30.0, 40.0))]
    picture, values = write_prediction(image, detections, tmp_path / "new" / "folder")
    assert (picture.name, values.name) == ("1.png", "1.json")
    content = json.loads(values.read_text())
    assert content["detections"] == [{"phrase": "red block", "score": 0.75, "box": [5.0, 6.0, 30.0, 40.0]}]
    assert Path(content["image"]) == image
    empty, _ = write_prediction(image, [], tmp_path / "empty")
    drawn, plain = (np.asarray(Image.open(path)) for path in (picture, empty))
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()
