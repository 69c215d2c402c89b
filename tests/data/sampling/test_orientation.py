"""Batches of one orientation: equal over ranks, every image equally often, exact at any start."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import pytest
from stream_parts import IMAGE, MIXED, TEXT, VISUAL, some, stream

from trex2_lightning.data.sampling.mixture import TrainSet, with_nameless
from trex2_lightning.data.sampling.orientation import in_place_of, portrait_apart
from trex2_lightning.data.sampling.rhythm import turn
from trex2_lightning.data.sampling.stream import Sample

UPRIGHT = IMAGE._replace(width=6)
FLAT = IMAGE._replace(height=6)
IMAGES = [UPRIGHT, FLAT, IMAGE, UPRIGHT, FLAT, FLAT, UPRIGHT, FLAT, IMAGE, FLAT]  # 3 of 10 are portrait
PORTRAIT = [0, 3, 6]
OTHERS = [1, 2, 4, 5, 7, 8, 9]


def both(name: str = "", **values: Any) -> TrainSet:
    return TrainSet(IMAGES, name=name, portrait=np.array(PORTRAIT), **values)


def mixed(**values: Any) -> list[list[Sample]]:
    """Two sets of both orientations with a third of squares, text and visual steps, two batches a step."""
    sets = with_nameless([both("a", visual=2), some(5, name="b")], IMAGES, 0.3)
    sets[-1] = sets[-1]._replace(portrait=np.array(PORTRAIT))
    return stream(**({"sets": sets, "rhythm": MIXED, "accumulate": 2, "stop": 600} | values))


def test_a_step_is_of_one_orientation_on_all_ranks_and_in_all_its_batches() -> None:
    ranks = [mixed(world=2, rank=rank) for rank in (0, 1)]
    orientations = Counter()
    for step in range(300):
        samples = [sample for rank in ranks for batch in rank[2 * step : 2 * step + 2] for sample in batch]
        assert len({sample.number for sample in samples}) == 1
        [orientation] = {IMAGES[sample.image] is UPRIGHT for sample in samples if sample.number != 1} or {None}
        orientations[orientation] += 1
        assert len({sample.seed for sample in samples}) == 8
    assert min(orientations.values()) > 30


def test_orientations_have_their_share_of_the_steps_evenly_spread() -> None:
    places = [turn(step, MIXED, [both()]) for step in range(300)]
    for visual in (False, True):
        own = [place for place in places if place.visual == visual]
        for ten in range(0, len(own), 10):
            assert sum(place.portrait for place in own[ten : ten + 10]) == 3
        apart = np.diff([number for number, place in enumerate(own) if place.portrait])
        assert (apart.min(), apart.max()) == (3, 4)
        for portrait in (False, True):
            before = [place.before for place in own if place.portrait == portrait]
            assert before == list(range(len(before)))


@pytest.mark.parametrize(
    ("kind", "rhythm"), [("detection", TEXT), ("detection", VISUAL), ("grounding", TEXT), ("nameless", VISUAL)]
)
def test_all_ranks_together_see_every_image_of_an_orientation_once_an_epoch_and_all_equally_often(
    kind: Any, rhythm: Any
) -> None:
    sets = [both(kind=kind)]
    ranks = [stream(sets=sets, rhythm=rhythm, world=2, rank=rank, batch_size=3, stop=700) for rank in (0, 1)]
    images = [sample.image for pair in zip(*ranks, strict=True) for batch in pair for sample in batch]
    for own in (PORTRAIT, OTHERS):
        order = [image for image in images if image in own]
        epochs = [order[start : start + len(own)] for start in range(0, len(order), len(own))]
        assert all(sorted(epoch) == own for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 5
    assert set(Counter(images).values()) == {420}


def test_a_later_start_is_the_rest_whatever_the_orientations() -> None:
    whole = mixed()
    for start in (1, 37, 250):
        assert mixed(start=start) == whole[start:]


def test_no_two_positions_share_a_seed_and_no_two_streams_an_order() -> None:
    samples = [sample for batch in mixed() for sample in batch]
    assert len({sample.seed for sample in samples}) == len(samples)
    halves = TrainSet([UPRIGHT, FLAT] * 20, portrait=np.arange(0, 40, 2))
    images = [sample.image for batch in stream(sets=[halves], batch_size=4, stop=10) for sample in batch]
    assert [image // 2 for image in images if image % 2] != [image // 2 for image in images if not image % 2]


@pytest.mark.parametrize("images", [[IMAGE] * 5, [UPRIGHT] * 5, [FLAT, IMAGE, FLAT, IMAGE, IMAGE]])
def test_a_set_of_one_orientation_has_the_order_that_it_had_without(images: list[Any]) -> None:
    """The numbers were drawn before there were orientations."""
    apart = portrait_apart(images, 1, "data.train")
    for rhythm, first in ((TEXT, [2, 1, 0, 3, 4, 4, 1, 3]), (VISUAL, [3, 0, 1, 4, 2, 0, 4, 3])):
        batches = stream(sets=[TrainSet(images, portrait=apart)], rhythm=rhythm, stop=4)
        assert [sample.image for batch in batches for sample in batch] == first


def test_fewer_images_than_a_step_takes_have_no_steps_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert portrait_apart(IMAGES, 3, "data.train").tolist() == PORTRAIT
        assert portrait_apart([FLAT] * 5, 8, "data.train").tolist() == []
        assert not caplog.messages
        assert portrait_apart(IMAGES, 4, "data.sets.a").tolist() == []
        assert portrait_apart([UPRIGHT] * 9 + [FLAT] * 3, 4, "data.sets.b").tolist() == []
    assert [message[:52] for message in caplog.messages] == [
        "data.sets.a: 3 images are portrait and 7 are not: fe",
        "data.sets.b: 9 images are portrait and 3 are not: fe",
    ]


def test_what_stands_for_an_image_is_of_its_orientation_if_any_can_be_read() -> None:
    assert list(in_place_of(IMAGES, 3)) == [3, 6, 0, 4, 5, 7, 8, 9, 1, 2]
    assert list(in_place_of(IMAGES, 8)) == [8, 9, 1, 2, 4, 5, 7, 0, 3, 6]
