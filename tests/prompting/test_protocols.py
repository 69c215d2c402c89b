"""What each protocol asks an image for, with a detector whose vectors say what it was shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trex2_lightning.config import Config
from trex2_lightning.metrics.regions import RegionAccuracy
from trex2_lightning.models.build import build_detector
from trex2_lightning.ops.prompt_tokens import average, from_vectors, from_words
from trex2_lightning.prompting import protocols
from trex2_lightning.prompting.protocols import (
    PROTOCOLS,
    Hinted,
    Interactive,
    Mixed,
    Prompting,
    Text,
    WrongPictures,
    promptings,
)
from trex2_lightning.prompting.reference_encoder import ReferenceEncoder
from trex2_lightning.prompting.region_classifier import RegionClassifier
from trex2_lightning.structures import Batch, Exemplars, FeatureMaps, Images, Prompts, PromptTokens, Targets
from trex2_lightning.training.build import build_datamodule
from trex2_lightning.training.trainer import build_evaluator

TinyConfig = Callable[..., Config]
NAMES = ("cat", "dog", "cow", "hen")
GREY = 0.0


class Glass:
    """A detector whose visual vectors are (mean box of the exemplars, how many, grey value of the picture)."""

    decoder = SimpleNamespace(width=6)

    def encode_image(self, images: Images) -> FeatureMaps:
        batch = len(images.pixels)
        tokens = images.pixels.mean((1, 2, 3))[:, None, None].expand(batch, 4, 6)
        valid, ratios = torch.ones(batch, 4, dtype=torch.bool), torch.ones(batch, 1, 2)
        return FeatureMaps(tokens, tokens, valid, ((2, 2),), ratios, tokens)

    def encode_prompts(self, prompts: Prompts, reference: FeatureMaps | None = None) -> PromptTokens:
        shown = prompts.exemplars
        if shown is None:
            return from_vectors(torch.tensor([[[float(len(name))] * 6 for name in prompts.phrases]]))
        assert reference is not None
        boxes = shown.boxes[..., :2] if shown.kind == "point" else shown.boxes
        boxes = torch.nn.functional.pad(boxes, (0, 4 - boxes.shape[-1]))
        count = shown.valid.sum(-1, keepdim=True)
        mean = (boxes * shown.valid[..., None]).sum(2) / count.clamp(min=1)
        grey = reference.tokens[:, None, :1, 0].expand_as(count)
        return from_vectors(torch.cat([mean, count, grey], -1), shown.valid.any(-1))


def image(image_id: int, labels: Sequence[int], grey: float = 0.5) -> tuple[Targets, float]:
    boxes = torch.rand(len(labels), 4, generator=torch.Generator().manual_seed(image_id))
    return Targets(torch.tensor(labels, dtype=torch.int64), boxes, image_id), grey


def batch_of(*images: tuple[Targets, float]) -> Batch:
    targets, greys = zip(*images, strict=True)
    pixels = torch.tensor(greys)[:, None, None, None].expand(-1, 3, 8, 8)
    valid = torch.ones(len(targets), 8, 8, dtype=torch.bool)
    return Batch(Images(pixels, valid, torch.full((len(targets), 2), 8)), Prompts(NAMES), targets)


def ask(prompting: Prompting, *batches: Batch) -> list[dict[int, list[float]]]:
    """For each image category to vector, of the valid ones."""
    detector: Any = Glass()
    prompting.start()
    asked = []
    for batch in batches:
        prompts = prompting(detector, batch, detector.encode_image(batch.images))
        count = len(batch.targets)
        embed, valid = prompts.embed.expand(count, -1, -1), prompts.valid.expand(count, -1)
        asked += [
            dict(zip(prompts.category[some].tolist(), vectors[some].tolist(), strict=True))
            for vectors, some in zip(embed, valid, strict=True)
        ]
    return asked


IMAGES = (image(7, [2, 0, 2, 2], 0.1), image(8, []), image(9, [1, 1, 0], 0.3), image(4, [2], 0.4))


# Interactive


def test_an_image_is_asked_for_its_own_categories_with_one_box_each() -> None:
    asked = ask(Interactive(seed=0), batch_of(*IMAGES))
    for (target, grey), found in zip(IMAGES, asked, strict=True):
        assert found.keys() == set(target.labels.tolist())
        for category, (*box, count, picture) in found.items():
            assert count == 1
            assert picture == pytest.approx(grey)
            assert box in target.boxes[target.labels == category].tolist()


def test_a_point_is_the_centre_of_the_same_box() -> None:
    boxes = ask(Interactive(seed=3), batch_of(*IMAGES))
    points = ask(Interactive(seed=3, kind="point"), batch_of(*IMAGES))
    for found, centres in zip(boxes, points, strict=True):
        assert centres == {category: [*vector[:2], 0, 0, *vector[4:]] for category, vector in found.items()}


def test_the_draw_depends_on_seed_image_and_category_alone() -> None:
    whole = ask(Interactive(seed=1), batch_of(*IMAGES))
    assert ask(Interactive(seed=1), *(batch_of(one) for one in IMAGES)) == whole
    assert ask(Interactive(seed=1), batch_of(*IMAGES[::-1])) == whole[::-1]
    drawn = [ask(Interactive(seed), batch_of(IMAGES[0]))[0] for seed in range(40)]
    assert len({tuple(found[2]) for found in drawn}) == 3  # any of its three boxes


def test_images_and_categories_have_draws_of_their_own() -> None:
    """Of as many boxes not all show the first, or whichever it is."""
    images = [image(number, [category for category in range(4) for _ in range(5)]) for number in range(8)]
    drawn = torch.zeros(8, 4, dtype=torch.int64)
    for row, ((target, _), found) in enumerate(zip(images, ask(Interactive(seed=0), batch_of(*images)), strict=True)):
        for category, vector in found.items():
            boxes = target.boxes[target.labels == category].tolist()
            drawn[row, category] = boxes.index(vector[:4])
    assert all(len(column.unique()) > 1 for column in drawn.T), "images"
    assert all(len(row.unique()) > 1 for row in drawn), "categories"


def test_a_batch_without_boxes_is_asked_for_nothing() -> None:
    assert ask(Interactive(seed=0), batch_of(image(8, []), image(6, []))) == [{}, {}]


@pytest.mark.parametrize("sizes", [[4], [1, 1, 1, 1], [3, 1]])
def test_wrong_pictures_are_those_before_whatever_the_batches(sizes: list[int]) -> None:
    rest, batches = list(IMAGES), []
    for size in sizes:
        batches.append(batch_of(*rest[:size]))
        rest = rest[size:]
    right, wrong = ask(Interactive(seed=0), *batches), ask(WrongPictures(seed=0), *batches)
    pictures = [GREY, 0.1, 0.5, 0.3]  # 0.5 is that of image 8
    for own, other, picture in zip(right, wrong, pictures, strict=True):
        assert other == {category: [*vector[:5], pytest.approx(picture)] for category, vector in own.items()}


def test_every_evaluation_has_a_grey_picture_before_its_first() -> None:
    prompting = WrongPictures(seed=0)
    assert ask(prompting, batch_of(*IMAGES)) == ask(prompting, batch_of(*IMAGES))


# Given


def test_each_image_is_asked_with_the_exemplars_given_for_it() -> None:
    """Of an image that is given more the others' places are empty."""
    exemplars = {target.image_id: torch.rand(count, 4) for count, (target, _) in enumerate(IMAGES, 1)}
    rows = promptings(["exemplars"], ("object",), 0, None, [], exemplars)
    assert list(rows) == ["exemplars"]
    for (target, grey), found in zip(IMAGES, ask(rows["exemplars"], batch_of(*IMAGES)), strict=True):
        boxes = exemplars[target.image_id]
        assert found == {0: pytest.approx([*boxes.mean(0).tolist(), len(boxes), grey])}


# Text, generic, mixed


def test_hinted_text_is_text_for_the_categories_that_the_image_has() -> None:
    text, hinted = ask(Text(), batch_of(*IMAGES)), ask(Hinted(Text()), batch_of(*IMAGES))
    assert all(found.keys() == {0, 1, 2, 3} for found in text)
    for (target, _), everything, found in zip(IMAGES, text, hinted, strict=True):
        assert found == {category: everything[category] for category in set(target.labels.tolist())}


def test_separators_stay_where_text_has_some() -> None:
    """Around the names, and at the end of those that the image has; another name's would tell of it."""
    words = from_words(torch.rand(4, 3, 6), torch.tensor([1, 3, 2, 1]))  # [CLS] hot dog . cat . [SEP]
    text: Any = lambda *_: words  # noqa: E731
    prompts = Hinted(text)(Glass(), batch_of(image(9, [1, 3])), None)  # type: ignore[arg-type]
    assert prompts.valid.tolist() == [[True, False, False, False, True, True, True]]


def test_other_phrases_are_asked_for_in_the_names_place() -> None:
    phrases = ("a", "bb", "ccc", "dddd")
    [found] = ask(Text(phrases), batch_of(IMAGES[0]))
    assert [vector[0] for vector in found.values()] == [1, 2, 3, 4]


def test_mixed_prompts_by_both_formulas() -> None:
    """Two references have vectors of 6 and 9 for the first category, none for the second; its name has 3 letters."""
    vectors = torch.tensor([6.0, 9.0])[:, None, None].expand(2, 4, 6)
    valid = torch.tensor([[True, False, False, False]] * 2)
    references = from_vectors(vectors, valid)
    [half] = ask(Mixed(Text(), average(references)), batch_of(IMAGES[0]))
    [mean] = ask(Mixed(Text(), references), batch_of(IMAGES[0]))
    assert half[0] == pytest.approx([(3 + 7.5) / 2] * 6)
    assert mean[0] == pytest.approx([(3 + 6 + 9) / 3] * 6)
    assert half[1] == mean[1] == [3] * 6


def test_rows_of_all_protocols() -> None:
    references = from_vectors(torch.tensor([1.0, 2.0, 6.0])[:, None, None].expand(3, 4, 6))
    rows = promptings(PROTOCOLS, NAMES, 0, references, [1, 2, 3])
    assert list(rows) == [
        *("text", "random_phrases", "hinted_text", "interactive_box", "interactive_point", "wrong_pictures"),
        *("generic_1", "generic_2", "generic_3", "mixed", "mixed_mean"),
    ]
    generic = [ask(rows[f"generic_{count}"], batch_of(*IMAGES))[1][3][0] for count in (1, 2, 3)]
    assert generic == [1, 1.5, 3]
    assert list(promptings(["mixed_mean", "text"], NAMES, 0, references, [1])) == ["text", "mixed_mean"]
    assert list(promptings(["random_phrases"], NAMES, 0, None, [1])) == ["random_phrases"]


@pytest.mark.parametrize("count", [2, 3, 10, 57])
def test_permuted_names_are_the_same_names_and_none_is_at_its_place(count: int) -> None:
    names = tuple(f"name {i}" for i in range(count))
    for seed in range(20):
        shuffled = protocols.permuted(names, seed)
        assert sorted(shuffled) == sorted(names)
        assert all(a != b for a, b in zip(names, shuffled, strict=True))
    assert protocols.permuted(names, 3) == protocols.permuted(names, 3)


# References


def test_a_reference_shows_all_its_boxes_of_what_it_was_drawn_for() -> None:
    """Image 9 was drawn second for category 1, and not for 0; category 3 has no image."""
    encoder = ReferenceEncoder(Glass(), {7: {2: 0, 0: 0}, 9: {1: 1}, 4: {1: 0}}, 2, 4)  # type: ignore[arg-type]
    other = image(4, [1], 0.4)
    for batch in (batch_of(IMAGES[0], IMAGES[2]), batch_of(other)):
        encoder.predict_step(batch)
    prompts = encoder.prompts
    assert prompts.valid.tolist() == [[True, True, True, False], [False, True, False, False]]
    target = IMAGES[0][0]
    expected = [*target.boxes[[0, 2, 3]].mean(0).tolist(), 3, 0.1]
    assert prompts.embed[0, 2].tolist() == pytest.approx(expected)
    assert prompts.embed[1, 1, 4:].tolist() == pytest.approx([2, 0.3])
    assert prompts.embed[0, 1].tolist() == pytest.approx([*other[0].boxes[0].tolist(), 1, 0.4])


def test_an_image_that_is_seen_twice_counts_once() -> None:
    encoder = ReferenceEncoder(Glass(), {7: {2: 0, 0: 0}}, 1, 4)  # type: ignore[arg-type]
    encoder.predict_step(batch_of(IMAGES[0]))
    once = encoder.prompts.embed.clone()
    encoder.predict_step(batch_of(IMAGES[0]))
    torch.testing.assert_close(encoder.prompts.embed, once)


def test_references_are_those_of_a_slow_loop(square_coco: Any, tiny_config: TinyConfig) -> None:
    """Image by image and category by category, with a real detector."""
    torch.manual_seed(0)
    config = tiny_config(f"data.root={square_coco}", "eval.batch_size=4")
    detector = build_detector(config.model).eval()
    data = build_datamodule(config)
    data.setup("test")
    names = data.test_records.names
    drawn = data.draw_references(names, 3)
    encoder = ReferenceEncoder(detector, drawn, 3, len(names))
    build_evaluator(config).predict(encoder, datamodule=data, return_predictions=False)

    expected, valid = torch.zeros_like(encoder.prompts.embed), torch.zeros(3, len(names), dtype=torch.bool)
    data.eval_batch_size = 1
    with torch.inference_mode():
        for batch in data.predict_dataloader():
            [target] = batch.targets
            features = detector.encode_image(batch.images)
            for category, place in drawn[target.image_id].items():
                boxes = target.boxes[target.labels == category]
                shown = Exemplars(boxes[None, None], torch.ones(1, 1, len(boxes), dtype=torch.bool))
                prompts = detector.encode_prompts(Prompts(exemplars=shown), features)
                expected[place, category] = prompts.embed[0, 0]
                valid[place, category] = True
    assert valid.sum() >= 5
    assert torch.equal(encoder.prompts.valid, valid)
    torch.testing.assert_close(encoder.prompts.embed, expected, rtol=1e-4, atol=1e-4)


# Regions


class Mirror(Glass):
    """Names are unit vectors; a box is seen as its own four coordinates."""

    def encode_prompts(self, prompts: Prompts, reference: FeatureMaps | None = None) -> PromptTokens:
        if prompts.exemplars is None:
            return from_vectors(torch.eye(4)[None])
        assert prompts.exemplars.boxes.shape[2] == 1, "each box alone"
        return from_vectors(prompts.exemplars.boxes[:, :, 0])


def classified(*images: tuple[list[int], list[list[float]]]) -> tuple[list[int], dict[str, float]]:
    """Ranks of all boxes and the figures."""
    targets = [
        (Targets(torch.tensor(labels).long(), torch.tensor(boxes).view(-1, 4), i), 0.5)
        for i, (labels, boxes) in enumerate(images)
    ]
    batch, accuracy, detector = batch_of(*targets), RegionAccuracy(["rare", "rare", "novel", ""]), Mirror()
    regions = RegionClassifier(Text(), accuracy)
    regions.start()
    regions.update(detector, batch, detector.encode_image(batch.images))  # type: ignore[arg-type]
    ranks = [rank for result in accuracy._results.values() for rank in result.ranks.tolist()]
    return ranks, accuracy.compute()


def test_a_region_is_named_by_the_most_similar_name() -> None:
    best, third, last = [0.9, 0.2, 0.1, 0.3], [0.3, 0.4, 0.1, 0.2], [0.1, 0.6, 0.5, 0.4]
    ranks, figures = classified(([0, 3], [best, third]), ([], []), ([0], [last]))
    assert ranks == [0, 2, 3]
    assert figures["top1"] == pytest.approx(1 / 3)
    assert figures["top5"] == 1
    assert figures["top1/rare"] == 0.5


def test_names_that_are_equally_likely_are_no_answer() -> None:
    assert classified(([1], [[0.5, 0.5, 0.5, 0.5]]))[0] == [3]
