"""Names of things that nobody says are in the pictures: which ones there are, and who gets them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from trex2_lightning.config import DataConfig, NegativesConfig, RhythmConfig, SetConfig
from trex2_lightning.data.sampling import foreign
from trex2_lightning.data.sampling.foreign import far_from, foreign_in_place, foreign_names
from trex2_lightning.data.sampling.mixture import read_mixture
from trex2_lightning.data.sampling.vocabulary import NO_FOREIGN
from trex2_lightning.data.shapes.layout import categories

LISTS = Path(foreign.__file__).parent
TRAINING, EVALUATION = (
    tuple((LISTS / f"foreign_{half}.txt").read_text().splitlines()) for half in ("training", "evaluation")
)


@pytest.mark.parametrize("half", ["training", "evaluation"])
def test_a_list_is_plain_sorted_and_without_repetition(half: str) -> None:
    content = (LISTS / f"foreign_{half}.txt").read_bytes()
    names = content.decode("ascii").splitlines()
    assert content == b"".join(name.encode() + b"\n" for name in names)
    assert names == sorted(set(names))
    assert all(name == " ".join(name.lower().split()) for name in names)
    assert len(names) >= 100


def test_no_name_of_training_is_near_one_of_evaluation() -> None:
    assert far_from(TRAINING, EVALUATION) == EVALUATION
    assert far_from(EVALUATION, TRAINING) == TRAINING


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("raccoon", "Raccoons"),
        ("RACCOON ", "raccoon"),
        ("white blood cell", "cells"),
        ("mountain_bike", "bike"),
        ("bike", "motorbike"),
        ("motorbike", "bike"),
        ("sea-horse", "horse race"),
        ("strawberries", "strawberry"),
        ("knives", "butter knife"),
        ("wolves", "wolf"),
        ("boxes", "box"),
        ("RedBull", "bull"),
        ("TVs", "tv"),
    ],
)
def test_near_names_are_left_out(name: str, near: str) -> None:
    assert far_from((name,), (near, "oak")) == ("oak",)


@pytest.mark.parametrize(("name", "far"), [("tv", "tvision"), ("HP", "chpo"), ("cup of tea", "proof"), ("cat", "dog")])
def test_others_are_not(name: str, far: str) -> None:
    assert far_from((name,), (far,)) == (far,)


def test_a_set_of_few_names_is_trained_with_them_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        some = foreign_names(("Zebras", "held-out canoe"), 1, 16, "data.train")
        assert some == (tuple(name for name in TRAINING if name not in {"canoe", "zebra"}), 16)
    [message] = caplog.messages
    assert message.startswith("data.train: so few names have boxes (1) that text batches are filled up to 16 phrases")
    assert foreign_names(("zebra",) * 16, 16, 16, "") == foreign_names(("zebra",), 1, 0, "") == NO_FOREIGN


def test_what_stands_in_the_names_place_is_of_the_other_list() -> None:
    for seed in range(20):
        drawn = foreign_in_place(("umbrella", "car"), seed)
        assert set(drawn) <= set(EVALUATION) - {"umbrella", "cardigan", "carrot"}
        assert len(set(drawn)) == 2
    assert {foreign_in_place(("umbrella",), seed) for seed in range(2000)} == {(n,) for n in EVALUATION} - {
        ("umbrella",)
    }
    many = foreign_in_place(tuple(f"x{number}" for number in range(500)), 0)
    assert set(many) == set(EVALUATION)
    assert len(many) == 500


def test_shapes_has_too_many_names() -> None:
    """What it is recorded to learn stays what it was."""
    for preset in ("easy", "hard"):
        seen = [category for category in categories(preset) if category.group in {"frequent", "common", "rare"}]
        assert len(seen) > NegativesConfig().foreign


def test_of_several_sets_those_of_detection_with_few_names_get_them(tiny_coco: Path) -> None:
    kinds = {"boxes": {}, "captions": {"kind": "grounding"}, "unused": {"text": 0.0, "visual": 1.0}}
    sets = {name: SetConfig("train.json", "train", **{"text": 1.0, **more}) for name, more in kinds.items()}
    found = read_mixture(DataConfig(root=str(tiny_coco), sets=sets), RhythmConfig(visual=1, text=1))
    assert {some.name for some in found if some.foreign.names} == {"boxes"}
