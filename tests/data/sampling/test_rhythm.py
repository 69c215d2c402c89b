"""What each step asks for: shares of text, visual prompts and sources, exact and evenly spread."""

from __future__ import annotations

import pytest
from stream_parts import IMAGE, MIXED, TEXT, some

from trex2_lightning.config import RhythmConfig
from trex2_lightning.data.sampling.mixture import with_nameless
from trex2_lightning.data.sampling.rhythm import turn


def test_eight_visual_steps_then_one_with_text() -> None:
    turns = [turn(step, RhythmConfig(visual=8, text=1), [some(5)]) for step in range(19)]
    assert [place.visual for place in turns] == ([True] * 8 + [False]) * 2 + [True]
    assert [place.before for place in turns] == [*range(8), 0, *range(8, 16), 1, 16]


@pytest.mark.parametrize("rhythm", [TEXT, RhythmConfig(visual=1, text=0), RhythmConfig(visual=3, text=2)])
def test_a_step_has_as_many_of_its_kind_before_it_as_there_were(rhythm: RhythmConfig) -> None:
    turns = [turn(step, rhythm, [some(5)]) for step in range(40)]
    for visual in (True, False):
        before = [place.before for place in turns if place.visual == visual]
        assert before == list(range(len(before)))


@pytest.mark.parametrize(("cross_image", "nameless"), [(0.3, 0.0), (0.0, 0.25), (0.5, 0.3), (1.0, 0.7), (0.1, 1.0)])
def test_shares_of_the_sources_are_exact_and_evenly_spread(cross_image: float, nameless: float) -> None:
    turns = [
        turn(step, MIXED, with_nameless([some(5)], [IMAGE], nameless), cross_image=cross_image) for step in range(300)
    ]
    sources = [place.source for place in turns if place.visual]
    assert len(sources) == 200
    assert all(place.source == "any" for place in turns if not place.visual)
    for part in (sources[:100], sources[100:]):
        assert part.count("nameless") == pytest.approx(100 * nameless, abs=1)
        assert part.count("cross_image") == pytest.approx(100 * (1 - nameless) * cross_image, abs=1)


@pytest.mark.parametrize("source", ["any", "cross_image", "nameless"])
def test_a_step_has_as_many_of_its_source_before_it_as_there_were(source: str) -> None:
    turns = [turn(step, MIXED, with_nameless([some(5)], [IMAGE], 0.3), cross_image=0.4) for step in range(90)]
    before = [place.before for place in turns if place.visual and place.source == source]
    assert before == list(range(len(before)))
    assert len(before) > 10
