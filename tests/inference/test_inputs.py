"""All that people have of images gives the same detections, and what is none is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trex2_lightning.errors import InputError
from trex2_lightning.inference.encoding import picture_of
from trex2_lightning.inference.inputs import as_phrases
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.models.text import PhraseError, _require_words
from trex2_lightning.structures import Box


def test_paths_texts_arrays_and_tensors_are_the_same_image(image: Path) -> None:
    picture = Image.open(image).convert("RGB")
    pixels = np.asarray(picture)
    assert pixels.shape[0] != pixels.shape[1]  # height and width are told apart
    channels_first = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for same in (image, str(image), picture, picture.convert("RGBA"), pixels, channels_first, channels_first / 255):
        assert np.array_equal(np.asarray(picture_of(same)), pixels)
    grey = np.asarray(picture.convert("L"))
    for same in (picture.convert("L"), grey, torch.from_numpy(grey.copy())[None]):
        assert np.array_equal(np.asarray(picture_of(same)), np.repeat(grey[..., None], 3, 2))


def test_a_picture_of_16_bits_is_the_same_opened_by_others(tmp_path: Path) -> None:
    """Pillow would make most of it white."""
    values = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10)
    Image.fromarray(values).save(tmp_path / "deep.png")
    opened = np.asarray(picture_of(Image.open(tmp_path / "deep.png")))
    assert np.array_equal(opened[..., 0], values // 256)
    assert np.array_equal(opened, np.asarray(picture_of(tmp_path / "deep.png")))


def test_a_picture_of_other_depths_is_what_its_file_would_be() -> None:
    for values in (np.array([[0, 4095]], np.uint16), np.array([[0, 65535]], np.int32), np.array([[0, 1]], np.float32)):
        assert [picture_of(Image.fromarray(values)).getpixel((x, 0)) for x in (0, 1)] == [(0,) * 3, (255,) * 3]


def test_floats_are_rounded() -> None:
    assert picture_of(torch.full((3, 1, 1), 0.999)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"an array \(3, 8, 9\) of uint8 is no image: give \(height, width, 3\)"),
        (np.zeros((8, 9, 3), np.float32), r"an array \(8, 9, 3\) of float32 is no image"),
        (np.zeros((0, 9, 3), np.uint8), r"an array \(0, 9, 3\)"),
        (
            torch.zeros(8, 9, 3, dtype=torch.uint8),
            r"a tensor \(8, 9, 3\) of uint8 is no image: give \(3, height",
        ),
        (torch.full((3, 8, 9), 1.5), r"a tensor \(3, 8, 9\) of float32 is no image: .* floats from 0 to 1"),
        (torch.zeros(3, 8, 9, dtype=torch.int64), r"of int64 is no image"),
        (torch.zeros(1, 3, 8, 9), r"a tensor \(1, 3, 8, 9\)"),
        (b"jpeg", r"bytes of an image: cannot be read \(cannot identify image file\)"),
        (3, r"a int is no image: give a path, a PIL image, an array or a tensor"),
        ("gone.jpg", r"gone\.jpg: no such image file"),
    ],
)
def test_what_is_no_image(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        picture_of(wrong)


def test_a_lone_text_is_one_phrase(predictor: Predictor) -> None:
    assert predictor.text("red block").names == ("red block",)
    assert torch.equal(predictor.text("red block").vectors, predictor.text(["red block"]).vectors)


def test_a_lone_name_is_one_that_is_not_wanted(predictor: Predictor, image: Path) -> None:
    prompts = predictor.text(["red block", "cell"])
    assert predictor.detect(image, prompts, 0.0, "cell") == predictor.detect(image, prompts, 0.0, ["cell"])


def test_a_lone_reference_is_one(predictor: Predictor, image: Path) -> None:
    marks = {"cell": [Box(1, 1, 9, 9)]}
    assert torch.equal(predictor.generic((image, marks)).vectors, predictor.generic([(image, marks)]).vectors)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ({"cell": Box(1, 1, 9, 9)}, r"^'cell' has Box\(.*\) and no list: give \[Box\(left=1"),
        ([Box(1, 1, 9, 9)], r"is no reference: give \(image, \{'name': \[Box\(x1, y1, x2, y2\)\]\}\)$"),
        ({"cell": []}, "'cell' has no exemplar"),
    ],
)
def test_marks_that_are_not_listed_by_name(predictor: Predictor, image: Path, marks: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predictor.interactive(image, marks)


@pytest.mark.parametrize("phrase", ["red . blue .", "a cat. a remote control.", "red .", "red . blue"])
def test_a_sentence_of_names_is_answered_with_the_names(phrase: str, predictor: Predictor) -> None:
    names = [repr(part.strip()) for part in phrase.split(".") if part.strip()]
    with pytest.raises(InputError, match=f"without the dots: {', '.join(names)}$"):
        predictor.text(phrase)


@pytest.mark.parametrize("phrase", ["St. Bernard", "Washington D.C.", "cat.", "No. 5 bottle", "a 2.5 l bottle"])
def test_names_may_have_dots(phrase: str) -> None:
    assert as_phrases(phrase) == (phrase,)


@pytest.mark.parametrize("size", [(3000, 2), (1, 1)])
def test_a_picture_of_any_shape_is_looked_at(predictor: Predictor, size: tuple[int, int]) -> None:
    found = predictor.detect(Image.new("RGB", size), predictor.text("cell"), threshold=0.0)
    assert all(0 <= left <= right <= size[0] for left, _, right, _ in (detection.box for detection in found))
    assert found


def test_a_phrase_that_nobody_writes_is_refused_at_once() -> None:
    """The expression that finds sentences takes the square of their length."""
    phrase = "a. " * 10**6
    assert as_phrases(phrase) == (phrase,)
    with pytest.raises(PhraseError, match="has 3,000,000 characters: shorten it"):
        _require_words([phrase])
