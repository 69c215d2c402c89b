"""The ways to prompt, each against its definition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from predictor_parts import BOX, OTHER, PHRASES, POINT
from torch import Tensor

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.prompting.prompt_set import join
from trex2_lightning.structures import Box, Exemplar, Exemplars, Prompts, PromptTokens
from trex2_lightning.training.build import build_module


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
    assert prompts.sources == ("interactive",) * 3
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
        assert mixed.sources == ("mixed", "text", "generic")
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


@pytest.mark.parametrize("cell", ["phrase-late", "word-early"], indirect=True)
def test_exemplars_bring_their_appearance_with_them(cell: Config, images: list[Path], tmp_path: Path) -> None:
    """One vector for each exemplar, in prompts, files and detections; with words beside them."""
    cell.model.appearance.name = "backbone"
    torch.manual_seed(0)
    predictor = Predictor(cell, build_module(cell))
    generic = predictor.generic([(images[0], {"cell": [BOX, OTHER]}), (images[1], {"cell": [BOX], "ring": [POINT]})])
    assert {name: len(vectors) for name, vectors in generic.appearance.items()} == {"cell": 3, "ring": 1}
    alone = predictor.interactive(images[0], {"cell": [BOX]})
    assert alone.sources == ("interactive",)
    torch.testing.assert_close(generic.appearance["cell"][:1], alone.appearance["cell"])
    both = join(generic, predictor.text(PHRASES[:1]))
    predictor.save(both, tmp_path / "prompts.safetensors")
    found = [
        predictor.detect(images[0], prompts, threshold=0.0)
        for prompts in (both, predictor.load(tmp_path / "prompts.safetensors"))
    ]
    assert [d.name for d in found[0]] == [d.name for d in found[1]]
    assert {d.name for d in found[0]} == {"cell", "ring", PHRASES[0]}
    predictor.module.detector.appearance = None
    bare = Predictor(cell, predictor.module)
    assert not bare.load(tmp_path / "prompts.safetensors").appearance
    bare.module.visual_trained = False
    with pytest.raises(InputError, match="has 'cell' by exemplars, and this checkpoint was trained with text alone"):
        bare.load(tmp_path / "prompts.safetensors")


def test_a_prompt_set_is_made_ready_once_for_many_images(
    cell: Config, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell.model.appearance.name = "backbone"
    predictor = Predictor(cell, build_module(cell))
    detector, prepared = predictor.module.detector, []
    prepare = detector.prepared

    def counted(prompts: PromptTokens) -> PromptTokens:
        prepared.append(prompts)
        return prepare(prompts)

    monkeypatch.setattr(detector, "prepared", counted)
    one = predictor.mixed(PHRASES[:1], [(images[0], {"cell": [BOX, OTHER]})])
    other = predictor.interactive(images[0], {"cell": [BOX]})
    fresh = [predictor.detect(image, one._replace(), threshold=0.0) for image in images]
    assert len(prepared) == len(images)
    kept = [predictor.detect(image, one, threshold=0.0) for image in images]
    assert kept == fresh
    assert len(prepared) == len(images) + 1
    assert predictor.detect(images[0], other, threshold=0.0) != kept[0]
    assert predictor.detect(images[0], one, threshold=0.0) == kept[0]


def test_prompts_whose_scores_are_not_fitted_are_told_of_once(
    cell: Config, images: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor(cell, build_module(cell))
    both = predictor.mixed(PHRASES[:1], [(images[0], {PHRASES[0]: [BOX], "cell": [OTHER]})])
    predictor.detect(images[0], both)
    assert "not fitted" not in caplog.text, "none is"
    bias = torch.zeros(2, 5)
    bias[0, [0, 2]] = 1.0  # of text and generic prompts, without appearance
    predictor.module.detector.calibration.load_fits({"bias": bias})
    predictor.detect(images[0], predictor.text(PHRASES))
    assert "not fitted" not in caplog.text
    again = both._replace()
    for image in images:
        predictor.detect(image, again)
    assert caplog.text.count("scores of mixed prompts are not fitted, and those of others are") == 1
