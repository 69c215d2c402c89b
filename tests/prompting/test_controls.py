"""Phrases that stand in the names' place: never the names themselves, and left out with a line where there are none."""

from __future__ import annotations

import pytest
from glass import NAMES

from trex2_lightning.data.sampling.foreign import far_from
from trex2_lightning.prompting.controls import permuted, wrong_phrases
from trex2_lightning.prompting.protocol_names import PROTOCOLS, TEXT_CONTROLS
from trex2_lightning.prompting.protocols import promptings


@pytest.mark.parametrize("count", [2, 3, 10, 57])
def test_permuted_names_are_the_same_names_and_none_is_at_its_place(count: int) -> None:
    names = tuple(f"name {i}" for i in range(count))
    for seed in range(20):
        shuffled = permuted(names, seed)
        assert sorted(shuffled) == sorted(names)
        assert all(a != b for a, b in zip(names, shuffled, strict=True))
    assert permuted(names, 3) == permuted(names, 3)


@pytest.mark.parametrize("names", [("raccoon",), NAMES])
def test_foreign_phrases_are_near_no_name_and_follow_from_the_seed(names: tuple[str, ...]) -> None:
    drawn = [wrong_phrases(TEXT_CONTROLS, names, seed)["foreign_phrases"] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(set(phrases)) for phrases in drawn] == [len(names)] * 3
    assert all(far_from(names, phrases) == phrases for phrases in drawn)


def test_a_single_name_has_no_random_phrases_but_foreign_ones(caplog: pytest.LogCaptureFixture) -> None:
    assert list(promptings(["text", *TEXT_CONTROLS], ("raccoon",), 0, None, [])) == ["text", "foreign_phrases"]
    assert caplog.messages == [
        "random_phrases left out: one name has no other to change places with; ask for foreign_phrases"
    ]


def test_names_that_are_near_all_foreign_ones_leave_them_out(caplog: pytest.LogCaptureFixture) -> None:
    every = wrong_phrases(PROTOCOLS, tuple(f"x{number}" for number in range(500)), 0)["foreign_phrases"]
    assert list(wrong_phrases(PROTOCOLS, every, 0)) == ["random_phrases"]
    assert caplog.messages == ["foreign_phrases left out: every foreign name is near one of the data set's"]
