from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from trex2_lightning.config import NegativesConfig
from trex2_lightning.data.sampling.vocabulary import (
    NO_FOREIGN,
    ForeignNames,
    NearNames,
    batch_vocabulary,
    drawn_negatives,
    negative_pool,
    read_dictionary,
)

NAMES = ("cat", "dog", "cow", "hen", "pig")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels(*images: list[int]) -> list[Tensor]:
    return [torch.tensor(image, dtype=torch.int64) for image in images]


def test_labels_name_the_same_categories_as_before() -> None:
    images = labels([3, 0, 3], [], [1])
    vocabulary = batch_vocabulary(images, NAMES, NAMES, 1, generator())
    assert len(vocabulary.phrases) == 4
    for before, after in zip(images, vocabulary.labels, strict=True):
        assert [vocabulary.phrases[label] for label in after] == [NAMES[label] for label in before]
        assert after.dtype == torch.int64


def test_negatives_are_drawn_without_replacement_from_the_rest() -> None:
    phrases = batch_vocabulary(labels([0], [1]), NAMES, NAMES, 80, generator()).phrases
    assert sorted(phrases) == sorted(NAMES)  # three are left to draw from
    drawn = {batch_vocabulary(labels([0]), NAMES, NAMES, 1, generator(seed)).phrases for seed in range(50)}
    assert {phrase for pair in drawn for phrase in pair} == set(NAMES)


def test_no_negative_equals_a_positive_or_another_negative() -> None:
    pool = ("Cat", " DOG ", "bird", "Bird", "cow")
    phrases = batch_vocabulary(labels([0, 1]), NAMES, pool, 10, generator()).phrases
    assert sorted(phrase.strip().lower() for phrase in phrases) == ["bird", "cat", "cow", "dog"]
    assert {"cat", "dog"} <= set(phrases)


def test_position_says_nothing() -> None:
    """Each of two positives and two negatives comes first about as often."""
    first = [batch_vocabulary(labels([0, 1]), NAMES, ("cow", "hen"), 2, generator(s)).phrases[0] for s in range(400)]
    for phrase in NAMES[:4]:
        assert 60 < first.count(phrase) < 140  # 100 expected, standard deviation 9


def test_only_the_generator_decides() -> None:
    one, same, other = (batch_vocabulary(labels([0, 1]), NAMES, NAMES, 2, generator(s)).phrases for s in (1, 1, 2))
    assert one == same != other


def test_a_batch_without_boxes_is_still_asked_for_something() -> None:
    assert len(batch_vocabulary(labels([], []), NAMES, NAMES, 0, generator()).phrases) == 1
    assert len(batch_vocabulary(labels([], []), NAMES, NAMES, 3, generator()).phrases) == 3


def test_without_negatives_only_positives_are_asked_for() -> None:
    assert batch_vocabulary(labels([2]), NAMES, NAMES, 0, generator()).phrases == ("cow",)


def test_sources_of_negatives(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("street lamp\n\n  wet dog \n", encoding="utf-8")
    words = ("street lamp", "wet dog")
    assert negative_pool(NegativesConfig(), NAMES) == NAMES
    assert negative_pool(NegativesConfig(source="dictionary", dictionary=str(path)), NAMES) == words
    assert negative_pool(NegativesConfig(source="both", dictionary=str(path)), NAMES) == NAMES + words


@pytest.mark.parametrize("text", [None, b"\n  \n", b"\xff\xff"])
def test_bad_dictionaries_are_named_with_the_key(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "words.txt"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ValueError, match=r"words\.txt: .*data\.negatives"):
        read_dictionary(path)


def test_a_vocabulary_of_few_phrases_is_filled_up_with_foreign_names() -> None:
    some = ForeignNames(("Hen", "harp", "raft", "cow"), 4)
    drawn = [batch_vocabulary(labels([3]), NAMES, NAMES[2:3], 1, generator(seed), some).phrases for seed in range(30)]
    assert {len(phrases) for phrases in drawn} == {4}
    assert all({"hen", "cow", "harp", "raft"} == set(phrases) for phrases in drawn)  # none twice, in whatever case
    few = [
        batch_vocabulary(labels([0, 1]), NAMES, (), 0, generator(s), some._replace(size=3)).phrases for s in range(30)
    ]
    assert {name for phrases in few for name in phrases} == {"cat", "dog", *some.names}
    assert {len(phrases) for phrases in few} == {3}


def test_a_vocabulary_of_as_many_phrases_is_what_it_is_without_them() -> None:
    for size in (0, 3):
        some = ForeignNames(("harp",), size)
        vocabularies = [batch_vocabulary(labels([0]), NAMES, NAMES, 2, generator(), f) for f in (some, NO_FOREIGN)]
        assert set(vocabularies[0].phrases) == set(vocabularies[1].phrases)
    assert len(batch_vocabulary(labels([]), NAMES, NAMES, 0, generator(), ForeignNames(("harp",), 2)).phrases) == 2


def test_a_share_of_the_negatives_is_nearest_to_the_positives() -> None:
    near = NearNames({"cat": ("cow", "dog"), "pig": ("hen",)}, 0.5)
    pool = (*NAMES, "ant", "bee", "elk")
    for seed in range(20):
        drawn = drawn_negatives(["cat"], pool, 4, generator(seed), near)
        assert {*drawn[:2]} == {"cow", "dog"}
        assert len({*drawn}) == 4
        assert "cat" not in drawn
    others = {drawn_negatives(["cat"], pool, 2, generator(seed), near)[1] for seed in range(40)}
    assert others > {"ant", "bee", "elk"}  # no more than half are near ones
    one = {drawn_negatives(["cat", "pig"], pool, 2, generator(seed), near)[0] for seed in range(40)}
    assert one == {"cow", "dog", "hen"}
    assert sorted(drawn_negatives(["ant"], pool, 9, generator(), near)) == sorted({*pool} - {"ant"})  # none is near
    assert {*drawn_negatives(["cat"], ("dog", "elk"), 4, generator(), near)} == {"dog", "elk"}  # cow is not judged
    asked = batch_vocabulary(labels([0]), NAMES, pool, 4, generator(), near=near).phrases
    assert {"cat", "cow", "dog"} < {*asked}
