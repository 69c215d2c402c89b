"""Which images a run trains on and evaluates: order, seeds, ranks and resume."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stream_parts import IMAGE, MIXED, VISUAL, some, stream

from trex2_lightning.config import RhythmConfig
from trex2_lightning.data.sampling.mixture import with_nameless
from trex2_lightning.data.sampling.sharing import SharedCategories
from trex2_lightning.data.sampling.stream import Sample, TrainStream, rank_order


def test_every_epoch_is_another_permutation() -> None:
    images = [sample.image for batch in stream() for sample in batch]
    epochs = [images[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_no_two_positions_share_a_seed() -> None:
    seeds = [sample.seed for batch in stream(stop=500) for sample in batch]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert set(seeds).isdisjoint(sample.seed for batch in stream(stop=500, seed=1) for sample in batch)


def test_ranks_share_the_stream_of_one() -> None:
    ranks = [stream(batch_size=2, world=2, rank=rank) for rank in (0, 1)]
    assert [[*first, *second] for first, second in zip(*ranks, strict=True)] == stream(batch_size=4)


def test_a_later_start_is_the_rest() -> None:
    assert stream(start=4) == stream()[4:]
    assert stream(start=4, accumulate=2, rhythm=MIXED) == stream(accumulate=2, rhythm=MIXED)[4:]
    assert len(TrainStream([some(5)], 2, 0, rank=0, world=1, start=4, stop=10)) == 10


# The rhythm


def test_all_batches_of_a_step_are_of_one_kind_on_all_ranks() -> None:
    ranks = [stream(stop=60, world=2, rank=rank, accumulate=2, rhythm=MIXED) for rank in (0, 1)]
    steps = [
        {sample.kind for rank in ranks for batch in rank[2 * s : 2 * s + 2] for sample in batch} for s in range(30)
    ]
    assert all(len(kinds) == 1 for kinds in steps)
    assert [kinds == {"text"} for kinds in steps] == [False, False, True] * 10


def test_each_kind_has_a_stream_of_its_own() -> None:
    """Text batches are those of a run with text alone, whatever lies between; visual ones are others."""
    mixed = stream(stop=30, accumulate=2, rhythm=MIXED)
    text = [batch for batch in mixed if batch[0].kind == "text"]
    assert text == stream(stop=10, accumulate=2)
    visual = [sample for batch in mixed for sample in batch if sample.kind != "text"]
    for epoch in range(8):
        assert sorted(sample.image for sample in visual[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    assert {sample.seed for sample in visual}.isdisjoint(sample.seed for batch in text for sample in batch)


@pytest.mark.parametrize(("points", "low", "high"), [(0.0, 0, 0), (0.5, 160, 240), (1.0, 400, 400)])
def test_share_of_steps_with_points(points: float, low: int, high: int) -> None:
    batches = stream(stop=400, rhythm=RhythmConfig(visual=1, text=0), points=points)
    assert low <= sum(batch[0].kind == "point" for batch in batches) <= high


# Where the images of visual steps come from


SHARED = SharedCategories([torch.tensor(labels) for labels in ([0], [0, 1], [1], [2, 2], [2])])


def sources(nameless: float = 0.4, **values: Any) -> list[list[Sample]]:
    settings = {"rhythm": MIXED, "sets": with_nameless([some(5, shared=SHARED)], [IMAGE] * 7, nameless)}
    return stream(**(settings | {"cross_image": 0.5} | values))


def test_every_image_that_shares_a_category_comes_first_equally_often_and_the_others_share_it() -> None:
    batches = sources(rhythm=VISUAL, cross_image=1.0, nameless=0.0, batch_size=2, stop=60)
    firsts = [batch[0].image for batch in batches]
    for epoch in range(12):
        assert sorted(firsts[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    neighbours = {(0, 1), (1, 0), (1, 2), (2, 1), (3, 4), (4, 3)}
    assert {(batch[0].image, batch[1].image) for batch in batches} == neighbours


def test_every_nameless_image_comes_equally_often() -> None:
    images = [sample.image for batch in sources(stop=700) for sample in batch if sample.source == "nameless"]
    assert len(images) > 300
    for epoch in range(len(images) // 7):
        assert sorted(images[7 * epoch : 7 * epoch + 7]) == [0, 1, 2, 3, 4, 5, 6]


def test_a_batch_has_one_source_and_other_sources_leave_text_and_the_rest_alone() -> None:
    batches = sources(stop=200, accumulate=2)
    assert all(len({sample.source for sample in batch}) == 1 for batch in batches)
    steps = [{sample.source for batch in batches[2 * s : 2 * s + 2] for sample in batch} for s in range(100)]
    assert all(len(found) == 1 for found in steps)
    assert [b for b in batches if b[0].kind == "text"] == stream(stop=66, accumulate=2)
    plain = [[(s.image, s.seed) for s in b] for b in batches if b[0].kind != "text" and b[0].source == "any"]
    alone = [[(s.image, s.seed) for s in b] for b in stream(stop=len(plain), accumulate=2, rhythm=VISUAL)]
    assert plain == alone
    seeds = [sample.seed for batch in batches for sample in batch]
    assert len(set(seeds)) == len(seeds)


def test_all_sources_resume_exactly_and_ranks_agree_on_them() -> None:
    assert sources(start=37, stop=80, accumulate=3) == sources(stop=80, accumulate=3)[37:]
    ranks = [sources(world=2, rank=rank, stop=60) for rank in (0, 1)]
    for first, second in zip(*ranks, strict=True):
        assert (first[0].kind, first[0].source) == (second[0].kind, second[0].source)
        assert [sample.seed for sample in first] != [sample.seed for sample in second]


# Evaluation


@pytest.mark.parametrize(("num_images", "batch_size", "world"), [(7, 2, 2), (8, 2, 3), (3, 4, 2), (9, 3, 3), (1, 1, 5)])
def test_ranks_evaluate_the_batches_of_one_process(num_images: int, batch_size: int, world: int) -> None:
    [alone] = [rank_order(num_images, batch_size, 0, 1)]
    assert alone == list(range(num_images))
    batches = [alone[start : start + batch_size] for start in range(0, num_images, batch_size)]
    shares = [rank_order(num_images, batch_size, rank, world) for rank in range(world)]
    cut = [[share[start : start + batch_size] for start in range(0, len(share), batch_size)] for share in shares]
    assert {len(own) for own in cut} == {-(-len(batches) // world)}, "a rank would wait for the others"
    assert all(batch in batches for own in cut for batch in own)
    assert {image for share in shares for image in share} == set(alone)


def test_no_image_is_no_batch() -> None:
    assert rank_order(0, 4, 1, 2) == []
