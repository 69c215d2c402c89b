"""The ways to prompt, each against its definition, and prediction on one image file from a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.inference.predictor import Detection, EncodedImage, Predictor, output_files, write_prediction
from trex2_lightning.prompting.prompt_set import PromptSet, join
from trex2_lightning.structures import Box, Exemplar, Exemplars, Point, Prompts
from trex2_lightning.training.build import build_module
from trex2_lightning.training.fit import train

PHRASES = ("red block", "green block", "blue block")
BOX, OTHER, POINT = Box(5, 6, 30, 40), Box(20, 10, 45, 30), Point(12, 30)  # every image of the test split has them


@pytest.fixture
def config(tiny_config: Callable[..., Config]) -> Config:
    return tiny_config("train.rhythm.visual=1")


@pytest.fixture
def predictor(config: Config) -> Predictor:
    torch.manual_seed(0)
    return Predictor(config, build_module(config))


@pytest.fixture
def images(tiny_coco: Path) -> list[Path]:
    return [tiny_coco / "test" / f"{number}.jpg" for number in (1, 2, 3)]


@pytest.fixture
def image(images: list[Path]) -> Path:
    return images[0]


def direct(predictor: Predictor, image: Path, exemplars: list[Exemplar]) -> Tensor:
    """The vector (D,) of one category in one image, by the detector's own interface."""
    encoded = predictor.encode(image)
    height, width = encoded.size
    corners = [exemplar.corners for exemplar in exemplars]
    boxes = [((a + c) / 2 / width, (b + d) / 2 / height, (c - a) / width, (d - b) / height) for a, b, c, d in corners]
    valid = torch.ones(1, 1, len(boxes), dtype=torch.bool)
    prompts = Prompts(exemplars=Exemplars(torch.tensor([[boxes]]), valid, exemplars[0].kind))
    with torch.no_grad():
        return predictor.module.detector.encode_prompts(prompts, encoded.features).embed[0, 0]


# Prompts


@pytest.fixture(params=["phrase-early", "word-late", "word-early"])
def cell(request: pytest.FixtureRequest, tiny_config: Callable[..., Config]) -> Config:
    granularity, fusion = request.param.split("-")
    return tiny_config("train.rhythm.visual=1", f"model.granularity={granularity}", f"model.fusion={fusion}")


def test_text_is_what_evaluation_prompts(predictor: Predictor, config: Config, image: Path) -> None:
    assert_text_is_what_evaluation_prompts(predictor, config, image)


def test_every_detector_takes_every_prompt(cell: Config, images: list[Path], tmp_path: Path) -> None:
    """In any order, from a file too; of words those of a phrase alone, and their mean beside exemplars."""
    torch.manual_seed(0)
    predictor = Predictor(cell, build_module(cell))
    assert_text_is_what_evaluation_prompts(predictor, cell, images[0])
    text, visual = predictor.text(PHRASES[:1]), predictor.interactive(images[0], {"cell": [BOX], "ring": [OTHER]})
    mixed = predictor.mixed(PHRASES[1:], [(images[1], {PHRASES[1]: [BOX]})])
    assert mixed.sources == ("mixed", "text")
    half = (predictor.text(PHRASES[1:2]).vectors + predictor.generic([(images[1], {"x": [BOX]})]).vectors) / 2
    torch.testing.assert_close(mixed.vectors[:1], half, rtol=1e-4, atol=1e-5)
    predictor.save(join(mixed, text, visual), tmp_path / "prompts.safetensors")
    scores = []
    for prompts in (join(text, visual, mixed), predictor.load(tmp_path / "prompts.safetensors")):
        found = predictor.detect(images[0], prompts, threshold=0.0)
        assert len(found) == 20 * 5
        scores.append([[d.score for d in found if d.name == name] for name in sorted(prompts.names)])
    torch.testing.assert_close(torch.tensor(scores[0]), torch.tensor(scores[1]), rtol=1e-3, atol=1e-5)


def assert_text_is_what_evaluation_prompts(predictor: Predictor, config: Config, image: Path) -> None:
    result = evaluate(config, predictor.module, "test", ["text"]).rows["text"].results[0]
    detections = predictor.detect(image, predictor.text(PHRASES), threshold=0.0)
    assert [detection.name for detection in detections] == [PHRASES[label] for label in result.labels]
    torch.testing.assert_close(torch.tensor([d.score for d in detections]), result.scores, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(torch.tensor([d.box for d in detections]), result.boxes, rtol=1e-3, atol=0.5)


def test_interactive_reads_boxes_and_points_in_pixels(predictor: Predictor, image: Path) -> None:
    """Categories, and kinds, that are given together do not see each other."""
    prompts = predictor.interactive(image, {"cell": [BOX, OTHER], "nucleus": [POINT], "ring": [OTHER]})
    expected = {"cell": [BOX, OTHER], "ring": [OTHER], "nucleus": [POINT]}
    assert set(prompts.names) == set(expected)
    assert prompts.sources == ("visual",) * 3
    for name, vector in zip(prompts.names, prompts.vectors, strict=True):
        torch.testing.assert_close(vector, direct(predictor, image, expected[name]), rtol=1e-4, atol=1e-5)
    assert (prompts.vectors[0] - prompts.vectors[1]).abs().max() > 0.01


def test_generic_is_the_mean_over_the_images_that_show_the_category(predictor: Predictor, images: list[Path]) -> None:
    prompts = predictor.generic(
        [
            (images[0], {"cell": [BOX]}),
            (predictor.encode(images[1]), {"cell": [OTHER, BOX], "ring": [POINT]}),
            (Image.open(images[2]), {"cell": [OTHER]}),
        ]
    )
    cell = [[BOX], [OTHER, BOX], [OTHER]]
    mean = sum(direct(predictor, path, boxes) for path, boxes in zip(images, cell, strict=True)) / 3
    assert prompts.names == ("cell", "ring")
    torch.testing.assert_close(prompts.vectors[0], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prompts.vectors[1], direct(predictor, images[1], [POINT]), rtol=1e-4, atol=1e-5)


def test_mixed_weighs_text_by_a_half_or_as_one_of_the_images(predictor: Predictor, images: list[Path]) -> None:
    references = [(path, {"red block": [BOX], "ring": [OTHER]}) for path in images]
    text, visual = predictor.text(PHRASES[:2]).vectors, predictor.generic(references).vectors
    half = predictor.mixed(PHRASES[:2], references)
    mean = predictor.mixed(PHRASES[:2], references, "mean")
    for mixed, share in ((half, 1 / 2), (mean, 1 / 4)):
        assert mixed.names == ("red block", "green block", "ring")
        assert mixed.sources == ("mixed", "text", "visual")
        torch.testing.assert_close(mixed.vectors[0], share * text[0] + (1 - share) * visual[0])
        torch.testing.assert_close(mixed.vectors[1:], torch.stack([text[1], visual[1]]))


def test_pixels_are_those_of_the_upright_image(predictor: Predictor, image: Path, tmp_path: Path) -> None:
    upright = Image.open(image)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    stored = predictor.interactive(tmp_path / "lying.png", {"cell": [BOX]}).vectors
    torch.testing.assert_close(stored, predictor.interactive(upright, {"cell": [BOX]}).vectors)


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        (("red block", "red block"), "the phrase 'red block' is given twice"),
        (("red block", " "), "a phrase is empty"),
        (("word " * 30,), "has 32 tokens"),
    ],
)
def test_phrases_that_cannot_be_asked_for(predictor: Predictor, phrases: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        predictor.text(phrases)


def test_exemplars_that_cannot_be_asked_for(predictor: Predictor, images: list[Path]) -> None:
    with pytest.raises(InputError, match="'cell' has a box and a point"):
        predictor.generic([(images[0], {"cell": [BOX]}), (images[1], {"cell": [POINT]})])
    with pytest.raises(InputError, match="is no box in its image of"):
        predictor.interactive(images[0], {"cell": [Box(0, 0, 1000, 1000)]})
    with pytest.raises(InputError, match="is none: make it a Box or Point"):
        predictor.interactive(images[0], {"cell": [(0, 0, 10, 10)]})  # type: ignore[list-item]


def test_a_detector_of_stage_1_takes_no_exemplars(tiny_config: Callable[..., Config], image: Path) -> None:
    config = tiny_config()
    predictor = Predictor(config, build_module(config))
    with pytest.raises(InputError, match="was trained with text alone"):
        predictor.interactive(image, {"cell": [BOX]})
    assert predictor.text(PHRASES).names == PHRASES


# Detections


def test_boxes_lie_in_the_image_and_the_best_comes_first(predictor: Predictor, image: Path) -> None:
    detections = predictor.detect(image, predictor.text(PHRASES), threshold=0.0)
    with Image.open(image) as picture:
        width, height = picture.size
    assert len(detections) == 20 * len(PHRASES)
    assert all(0 <= d.box[0] <= d.box[2] <= width and 0 <= d.box[1] <= d.box[3] <= height for d in detections)
    assert max(d.box[2] for d in detections) > 1  # pixels, not shares
    assert detections == sorted(detections, key=lambda detection: -detection.score)


def test_the_threshold_is_the_lowest_score_that_is_kept(predictor: Predictor, image: Path) -> None:
    prompts = predictor.text(PHRASES)
    everything = predictor.detect(image, prompts, threshold=0.0)
    limit = everything[5].score
    kept = predictor.detect(image, prompts, threshold=limit)
    assert kept == [detection for detection in everything if detection.score >= limit]
    assert 6 <= len(kept) < len(everything)


def test_an_image_is_encoded_once_for_any_number_of_prompts(
    predictor: Predictor, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_file = predictor.detect(image, predictor.interactive(image, {"cell": [BOX]}), threshold=0.0)
    encoded = predictor.encode(image)
    monkeypatch.setattr(predictor.module.detector, "encode_image", None)
    assert predictor.detect(encoded, predictor.interactive(encoded, {"cell": [BOX]}), threshold=0.0) == from_file
    predictor.detect(encoded, join(predictor.text(PHRASES), predictor.interactive(encoded, {"cell": [POINT]})))


@pytest.fixture
def rivals(predictor: Predictor, image: Path) -> tuple[EncodedImage, PromptSet]:
    """Two categories, each of which scores higher for some of the queries."""
    encoded = predictor.encode(image)
    torch.manual_seed(0)
    for _ in range(50):
        prompts = PromptSet(("wanted", "unwanted"), torch.randn(2, 32), ("visual", "visual"))
        found = predictor.detect(encoded, prompts, threshold=0.0)
        winners = {box: name for name, _, box in reversed(found)}
        if 5 <= list(winners.values()).count("wanted") <= 15:
            return encoded, prompts
    raise AssertionError("no two random vectors are rivals")


def test_a_negative_takes_away_the_objects_that_it_wins(
    predictor: Predictor, rivals: tuple[EncodedImage, PromptSet]
) -> None:
    encoded, prompts = rivals
    everything = predictor.detect(encoded, prompts, threshold=0.0)
    winners = {box: name for name, _, box in reversed(everything)}  # the best comes first
    kept = predictor.detect(encoded, prompts, threshold=0.0, negative=["unwanted"])
    assert kept == [d for d in everything if d.name == "wanted" and winners[d.box] == "wanted"]
    assert 0 < len(kept) < 20


def test_what_cannot_be_detected(predictor: Predictor, image: Path, tmp_path: Path) -> None:
    prompts = predictor.text(PHRASES)
    with pytest.raises(InputError, match="the negative 'dog' is none of the categories red block, green block"):
        predictor.detect(image, prompts, negative=["dog"])
    with pytest.raises(InputError, match="there is nothing to look for"):
        predictor.detect(image, prompts, negative=PHRASES)
    with pytest.raises(InputError, match="there is nothing to look for"):
        predictor.detect(image, predictor.text(()))
    (tmp_path / "half.jpg").write_bytes(image.read_bytes()[:300])
    with pytest.raises(InputError, match=r"half\.jpg: cannot be read"):
        predictor.detect(tmp_path / "half.jpg", prompts)
    with pytest.raises(InputError, match=r"gone\.jpg: no such image file"):
        predictor.detect(tmp_path / "gone.jpg", prompts)


# Files


def test_a_prompt_file_finds_the_same_with_the_same_checkpoint_and_no_other(
    predictor: Predictor, config: Config, images: list[Path], tmp_path: Path
) -> None:
    checkpoint, file = tmp_path / "a.ckpt", tmp_path / "prompts.safetensors"
    content = {"state_dict": predictor.module.state_dict()}
    predictor.module.on_save_checkpoint(content)
    torch.save(content, checkpoint)
    prompts = predictor.mixed(PHRASES, [(images[1], {"red block": [BOX], "ring": [OTHER]})])
    predictor.save(prompts, file)

    fresh = Predictor.from_checkpoint(checkpoint)
    loaded = fresh.load(file)
    assert (loaded.names, loaded.sources) == (prompts.names, prompts.sources)
    assert fresh.detect(images[0], loaded, threshold=0.0) == predictor.detect(images[0], prompts, threshold=0.0)
    with pytest.raises(InputError, match="was made by a detector with other weights"):
        Predictor(config, build_module(config)).load(file)


def test_a_checkpoint_gives_the_predictor_of_its_run(tiny_config: Callable[..., Config], image: Path) -> None:
    config = tiny_config("train.max_steps=1")
    trained = Predictor(config, train(config))
    loaded = Predictor.from_checkpoint(config.folder / "checkpoints" / "last.ckpt")
    found = [p.detect(image, p.text(PHRASES), threshold=0.0) for p in (loaded, trained)]
    assert found[0] == found[1]


def test_the_picture_and_the_values_are_written(image: Path, tmp_path: Path) -> None:
    detections = [Detection("red block", 0.75, (5.0, 6.0, 30.0, 40.0))]
    picture, values = write_prediction(image, detections, tmp_path / "new" / "folder", {})
    assert (picture.name, values.name) == ("1.png", "1.json")
    content = json.loads(values.read_text())
    assert content["detections"] == [{"name": "red block", "score": 0.75, "box": [5.0, 6.0, 30.0, 40.0]}]
    assert Path(content["image"]) == image
    empty, _ = write_prediction(image, [], tmp_path / "empty", {})
    marked, _ = write_prediction(image, detections, tmp_path / "marked", {"red block": [OTHER]})
    drawn, plain, both = (np.asarray(Image.open(path)) for path in (picture, empty, marked))
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()
    assert (drawn != both).any()


def test_results_never_lie_beside_the_images_they_are_made_of(image: Path, tmp_path: Path) -> None:
    photograph = image.with_suffix(".png")
    Image.open(image).save(photograph)
    values = image.with_suffix(".json")
    values.write_text("the user's own")
    before = photograph.read_bytes()
    (tmp_path / "link").symlink_to(image.parent, target_is_directory=True)
    for folder in (image.parent, tmp_path / "link", image.parent / "new" / ".."):
        for file in (photograph, image):
            with pytest.raises(InputError, match=r"could replace it .*--output"):
                write_prediction(file, [], folder, {})
    assert (photograph.read_bytes(), values.read_text()) == (before, "the user's own")

    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "1.png").symlink_to(photograph)
    with pytest.raises(InputError, match="could replace it"):
        write_prediction(image, [], tmp_path / "results", {})
    other = tmp_path / "references" / "1.png"
    with pytest.raises(InputError, match=r"would lie beside .*references/1\.png"):
        output_files(image, other.parent, [other])
    assert output_files(image, tmp_path / "new", [other])[0] == tmp_path / "new" / "1.png"
