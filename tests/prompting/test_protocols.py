"""What each protocol asks an image for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from glass import IMAGES, NAMES, Glass, ask, batch_of, image

from trex2_lightning.config import Config
from trex2_lightning.models.build import build_detector
from trex2_lightning.ops.prompt_tokens import average, from_vectors, from_words
from trex2_lightning.prompting.protocol_names import PROTOCOLS
from trex2_lightning.prompting.protocols import (
    Fixed,
    Hinted,
    Interactive,
    Mixed,
    Text,
    WrongPictures,
    promptings,
)
from trex2_lightning.structures import ExemplarAppearance

GREY = 0.0


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
    words = from_words(torch.rand(4, 3, 6), [1, 3, 2, 1])  # [CLS] hot dog . cat . [SEP]
    text: Any = lambda *_: words  # noqa: E731
    prompts = Hinted(text)(Glass(), batch_of(image(9, [1, 3])), None)  # type: ignore[arg-type]
    assert prompts.valid.tolist() == [[True, False, False, False, True, True, True]]


def test_other_phrases_are_asked_for_in_the_names_place() -> None:
    phrases = ("a", "bb", "ccc", "dddd")
    [found] = ask(Text(phrases), batch_of(IMAGES[0]))
    assert [vector[0] for vector in found.values()] == [1, 2, 3, 4]


def test_prompts_of_references_are_made_ready_once_in_an_evaluation(tiny_config: Callable[..., Config]) -> None:
    """And again in the next: the weights may have changed."""
    detector = build_detector(tiny_config("model.appearance.name=backbone").model).eval()
    assert detector.appearance is not None
    vectors = torch.randn(2, 4, detector.decoder.width)
    references = from_vectors(vectors)
    seen = ExemplarAppearance(torch.randn(2, 4, detector.appearance.channels), references.valid, references.category)
    references = references._replace(appearance=seen)
    batch = batch_of(IMAGES[0])
    features = Glass().encode_image(batch.images)
    for prompting in (Fixed(average(references)), Mixed(Text(), average(references)), Mixed(Text(), references)):
        prompting.start()
        first, second = (prompting(detector, batch, features) for _ in range(2))
        assert first is second
        assert first.appearance is not None
        assert first.appearance.white is not None
        assert first.appearance.white.shape == first.appearance.vectors.shape == (1, 8, detector.appearance.channels)
        prompting.start()
        assert prompting(detector, batch, features) is not first


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


def test_mixed_prompts_of_references_that_are_not_learned_are_their_names_with_an_appearance() -> None:
    """Words stay words: their mean is nothing that such a detector was asked for."""
    detector: Any = Glass()
    words = from_words(torch.arange(24.0).view(2, 2, 6), [2, 2])
    detector.encode_prompts = lambda _: words
    references = from_vectors(torch.full((1, 2, 6), 100.0))
    seen = ExemplarAppearance(torch.randn(1, 2, 3), references.valid, references.category)
    mixed = Mixed(Text(), references._replace(appearance=seen), learned=False)
    batch = batch_of(IMAGES[0])
    mixed.start()
    asked = mixed(detector, batch, detector.encode_image(batch.images))
    assert asked.appearance is not None
    assert torch.equal(asked.appearance.vectors, seen.vectors)
    assert all(torch.equal(one, other) for one, other in zip(asked[:-1], words[:-1], strict=True))


def test_of_references_by_themselves_the_best_score_counts() -> None:
    """Three references with 1, 2 and 6 for every category; the second has none of the last one."""
    valid = torch.ones(3, 4, dtype=torch.bool)
    valid[1, 3] = False
    references = from_vectors(torch.tensor([1.0, 2.0, 6.0])[:, None, None].expand(3, 4, 6), valid)
    row = promptings(["generic"], NAMES, 0, references, [2], aggregation="best")["generic_2"]
    [found] = ask(row, batch_of(IMAGES[0]))
    assert {category: vector[0] for category, vector in found.items()} == {
        **dict.fromkeys(range(4), 1),
        4: 2,
        5: 2,
        6: 2,
    }
    scores = torch.tensor([[[0.1, 0.2, 0.3, 0.4, 0.5, 0.1, 0.3, 0.0]]])
    assert row.of_categories(scores).tolist() == [[pytest.approx([0.5, 0.2, 0.3, 0.4])]]


def test_the_control_of_generic_prompts_asks_with_another_category_s_references() -> None:
    vectors = torch.eye(6)[:4].expand(3, 4, 6)
    valid = torch.tensor([[True, True, True, False]]).expand(3, 4)
    shown = ExemplarAppearance(torch.arange(12.0).reshape(3, 4, 1), valid, torch.arange(4))
    references = from_vectors(vectors, valid)._replace(appearance=shown)
    row = promptings(["random_references"], NAMES, 0, references, [1, 2])["random_references"]
    found = row(Glass(), batch_of(IMAGES[0]), Glass().encode_image(batch_of(IMAGES[0]).images))  # type: ignore[arg-type]
    theirs = found.embed[0].argmax(-1).tolist()
    asked = [place for place in range(4) if found.valid[0, place]]
    assert len(asked) == 3
    assert {theirs[place] for place in asked} == {0, 1, 2}
    assert all(theirs[place] != place for place in range(4) if place in asked)
    assert found.appearance is not None
    of_place = {
        (place, value)
        for value, place in zip(
            found.appearance.vectors[0, :, 0].tolist(), found.appearance.category.tolist(), strict=True
        )
    }
    assert {value % 4 for place, value in of_place if place in asked} == {0, 1, 2}
    assert all(value % 4 == theirs[place] for place, value in of_place if place in asked)
    assert max(value for _, value in of_place) < 8  # of the first two references alone


def test_one_category_has_no_such_control(caplog: pytest.LogCaptureFixture) -> None:
    references = from_vectors(torch.eye(6)[:1].expand(3, 1, 6))
    assert not promptings(["random_references"], ("cat",), 0, references, [1])
    assert "random_references left out" in caplog.text


def test_references_may_be_weighted() -> None:
    vectors = torch.eye(6)[torch.tensor([0, 0, 5])][:, None].expand(3, 4, 6)
    rows = promptings(["generic"], NAMES, 0, from_vectors(vectors), [3], aggregation="weighted")
    [found] = ask(rows["generic_3"], batch_of(IMAGES[0]))
    assert found[0][0] > 0.99  # the mean is 2 / 3


def test_rows_of_all_protocols() -> None:
    references = from_vectors(torch.tensor([1.0, 2.0, 6.0])[:, None, None].expand(3, 4, 6))
    rows = promptings(PROTOCOLS, NAMES, 0, references, [1, 2, 3])
    assert list(rows) == [
        *(
            "text",
            "random_phrases",
            "foreign_phrases",
            "hinted_text",
            "interactive_box",
            "interactive_point",
            "wrong_pictures",
        ),
        *("generic_1", "generic_2", "generic_3", "random_references", "mixed", "mixed_mean"),
    ]
    generic = [ask(rows[f"generic_{count}"], batch_of(*IMAGES))[1][3][0] for count in (1, 2, 3)]
    assert generic == [1, 1.5, 3]
    assert list(promptings(["mixed_mean", "text"], NAMES, 0, references, [1])) == ["text", "mixed_mean"]
    assert list(promptings(["random_phrases"], NAMES, 0, None, [1])) == ["random_phrases"]
