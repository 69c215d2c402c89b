"""What text finds best in pictures becomes exemplars beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from predictor_parts import BOX, PHRASES

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError
from trex2_lightning.inference.predictor import Predictor
from trex2_lightning.inference.refining import Refining, refine
from trex2_lightning.structures import Box, Detection
from trex2_lightning.training.build import build_module

FOUND = {  # by the picture's name: phrase, score, box
    "1.jpg": [("red block", 0.9, (2, 2, 20, 20)), ("green block", 0.5, (5, 5, 30, 30))],
    "2.jpg": [("red block", 0.8, (4, 4, 24, 30)), ("red block", 0.7, (30, 5, 40, 30))],
    "3.jpg": [("red block", 0.6, (3, 3, 9, 9)), ("green block", 0.4, (7, 7, 7, 20))],
}


@pytest.fixture
def finding(predictor: Predictor, images: list[Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A predictor that finds `FOUND`, in the order of the pictures; what it was asked."""
    asked: dict[str, object] = {}
    order = iter(images)

    def search(prompts: object, threshold: object, nms: float) -> Callable[..., list[list[Detection]]]:
        asked.update(names=prompts.names, threshold=threshold, nms=nms)  # type: ignore[attr-defined]
        return lambda *_: [[Detection(*one) for one in FOUND[next(order).name] if one[0] in prompts.names]]  # type: ignore[attr-defined]

    monkeypatch.setattr(predictor, "search", search)
    return asked


def test_the_best_boxes_of_all_pictures_are_mixed_with_their_phrase(
    predictor: Predictor, images: list[Path], finding: dict[str, object]
) -> None:
    prompts = refine(predictor, PHRASES, images, refining=Refining(3, 0.3))
    assert finding == {"names": PHRASES, "threshold": 0.3, "nms": 0.5}
    shown = [
        (images[0], {"red block": [Box(2, 2, 20, 20)], "green block": [Box(5, 5, 30, 30)]}),
        (images[1], {"red block": [Box(4, 4, 24, 30), Box(30, 5, 40, 30)]}),
    ]
    expected = predictor.mixed(PHRASES, shown)
    assert (prompts.names, prompts.sources) == (expected.names, ("mixed", "mixed", "text"))  # blue: nothing was found
    torch.testing.assert_close(prompts.vectors, expected.vectors)


def test_one_box_each_weighed_as_is_asked_for(
    predictor: Predictor, images: list[Path], finding: dict[str, object]
) -> None:
    prompts = refine(predictor, PHRASES[0], images, mix="mean", refining=Refining(1))
    assert finding["threshold"] is None  # the checkpoint's
    expected = predictor.mixed(PHRASES[0], [(images[0], {"red block": [Box(2, 2, 20, 20)]})], "mean")
    torch.testing.assert_close(prompts.vectors, expected.vectors)


def test_a_phrase_that_a_person_has_marked_is_left_to_that(
    predictor: Predictor, images: list[Path], finding: dict[str, object]
) -> None:
    marked = [(images[2], {"red block": [BOX]})]
    prompts = refine(predictor, PHRASES[:1], images, marked)
    assert not finding
    torch.testing.assert_close(prompts.vectors, predictor.mixed(PHRASES[:1], marked).vectors)
    refine(predictor, PHRASES, images, marked)
    assert finding["names"] == PHRASES[1:]


def test_a_picture_that_was_encoded_is_not_encoded_again(
    predictor: Predictor, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = predictor.encode(image)
    monkeypatch.setattr(predictor, "see", lambda *_: pytest.fail("seen again"))
    prompts = refine(predictor, PHRASES, [encoded], refining=Refining(least=0.0))
    assert prompts.sources == ("mixed",) * 3
    assert refine(predictor, PHRASES, [encoded], refining=Refining(least=1.0)).sources == ("text",) * 3


def test_what_cannot_be_refined(predictor: Predictor, tiny_config: Callable[..., Config], image: Path) -> None:
    with pytest.raises(InputError, match=r"there is no phrase .* give one by --text"):
        refine(predictor, (), [image])
    text_alone = tiny_config()
    with pytest.raises(InputError, match=r"trained with text alone, .*take one of stage 2, .*, or leave out --refine"):
        refine(Predictor(text_alone, build_module(text_alone)), PHRASES, [image])


def test_what_text_finds_is_compared_where_exemplars_are_not_learned(
    tiny_config: Callable[..., Config], image: Path
) -> None:
    config = tiny_config("model.appearance.name=backbone")
    module = build_module(config)
    module.known_names = PHRASES
    refined = refine(Predictor(config, module), PHRASES[:1], [image], refining=Refining(least=0.0))
    assert refined.sources == ("mixed",)
    assert len(refined.appearance[PHRASES[0]]) == 3
