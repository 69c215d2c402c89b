import numpy as np
import pytest
import torch

from trex2_lightning.ops.prompt_tokens import (
    average,
    category_vectors,
    complete,
    fitting,
    from_vectors,
    from_words,
    only,
    owners,
    parts,
    take,
    together,
)


def tokens(vectors, valid=None):
    return from_vectors(torch.tensor(vectors), None if valid is None else torch.tensor(valid))


TEXT = tokens([[[9.0, 0.0], [0.0, 9.0], [5.0, 5.0]]])
VISUAL = tokens(  # two reference images: the first has both of the first categories, the second only the first
    [[[3.0, 3.0], [6.0, 3.0], [7.0, 7.0]], [[0.0, 3.0], [8.0, 8.0], [7.0, 7.0]]],
    [[True, True, False], [True, False, False]],
)


def test_vectors_are_categories_that_do_not_see_each_other():
    prompts = from_vectors(torch.zeros(2, 3, 4))
    assert prompts.valid.tolist() == [[True] * 3] * 2
    assert prompts.category.tolist() == [0, 1, 2]
    assert prompts.position.tolist() == [0, 0, 0]
    assert torch.equal(prompts.attend, torch.eye(3, dtype=torch.bool))


def test_generic_is_the_mean_over_the_images_that_have_the_category():
    generic = average(VISUAL)
    assert generic.embed.tolist() == [[[1.5, 3.0], [6.0, 3.0], [0.0, 0.0]]]
    assert generic.valid.tolist() == [[True, True, False]]


def test_mixed_half_and_half():
    """A category without exemplars keeps its text."""
    mixed = average(TEXT, average(VISUAL))
    assert mixed.embed.tolist() == [[[5.25, 1.5], [3.0, 6.0], [5.0, 5.0]]]
    assert mixed.valid.all()


def test_mixed_plain_mean():
    mixed = average(TEXT, VISUAL)
    assert mixed.embed.tolist() == [[[4.0, 2.0], [3.0, 6.0], [5.0, 5.0]]]


def test_images_given_one_by_one_average_as_those_given_together():
    apart = [VISUAL._replace(embed=VISUAL.embed[i : i + 1], valid=VISUAL.valid[i : i + 1]) for i in range(2)]
    assert torch.equal(average(*apart).embed, average(VISUAL).embed)


def test_what_an_image_lacks_comes_from_the_others():
    own = complete(VISUAL, average(VISUAL))
    assert own.embed.tolist() == [[[3.0, 3.0], [6.0, 3.0], [0.0, 0.0]], [[0.0, 3.0], [6.0, 3.0], [0.0, 0.0]]]
    assert own.valid.tolist() == [[True, True, False]] * 2


SENTENCE = from_words(  # "[CLS] red star . ring . a blue moon . [SEP]"
    torch.arange(5 * 4, dtype=torch.float32).view(5, 4, 1), [1, 3, 2, 4, 1]
)


def test_words_see_those_of_their_name_and_what_closes_it():
    assert SENTENCE.embed[0, :, 0].tolist() == [0, 4, 5, 6, 8, 9, 12, 13, 14, 15, 16]
    assert SENTENCE.category.tolist() == [-1, 0, 0, -1, 1, -1, 2, 2, 2, -1, -1]
    assert SENTENCE.position.tolist() == [0, 0, 1, 2, 0, 1, 0, 1, 2, 3, 0]
    blocks = [torch.ones(n, n) for n in (1, 3, 2, 4, 1)]
    assert torch.equal(SENTENCE.attend, torch.block_diag(*blocks).bool())
    assert SENTENCE.valid.all()


def test_a_category_s_vector_is_the_mean_of_its_words():
    assert category_vectors(SENTENCE)[0, :, 0].tolist() == pytest.approx([4.5, 8.0, 13.0])


def test_a_name_s_words_count_in_a_mean_as_one_vector():
    visual = from_vectors(torch.tensor([[[0.5], [2.0], [3.0]]]), torch.tensor([[True, True, False]]))
    mixed = average(SENTENCE, visual)
    assert mixed.embed[0, :, 0].tolist() == pytest.approx([2.5, 5.0, 13.0])
    assert mixed.category.tolist() == [0, 1, 2]
    assert mixed.valid.all()


def test_a_name_is_left_out_with_what_closes_it():
    wanted = torch.stack([SENTENCE.category == 1, SENTENCE.category > 9])
    valid = only(SENTENCE, wanted).valid.int().tolist()
    assert valid == [[1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
    assert only(TEXT, torch.tensor([[False, True, False]])).valid.tolist() == [[False, True, False]]


def test_words_and_vectors_together_do_not_see_each_other():
    both = together(SENTENCE, from_vectors(torch.zeros(1, 2, 1))._replace(category=torch.tensor([3, 4])))
    assert both.embed.shape == (1, 13, 1)
    assert both.category.tolist() == [*SENTENCE.category.tolist(), 3, 4]
    assert torch.equal(both.attend, torch.block_diag(SENTENCE.attend, torch.eye(2)).bool())
    assert [part.tolist() for part in parts(both, 9)] == [[0, 1, 2, 3, 4, 5, 10], [0, 6, 7, 8, 9, 10, 11, 12]]


def test_parts_have_whole_categories_and_what_stands_around_them():
    assert [part.tolist() for part in parts(SENTENCE, 11)] == [list(range(11))]
    assert [part.tolist() for part in parts(SENTENCE, 7)] == [[0, 1, 2, 3, 4, 5, 10], [0, 6, 7, 8, 9, 10]]
    assert [part.tolist() for part in parts(SENTENCE, 5)] == [[0, 1, 2, 3, 10], [0, 4, 5, 10], [0, 6, 7, 8, 9, 10]]
    assert [part.tolist() for part in parts(from_vectors(torch.zeros(1, 5, 2)), 2)] == [[0, 1], [2, 3], [4]]


def fitted(prompts, present, limit, seed):
    """What is left, with the new numbers of its categories, and these."""
    places, numbers = fitting(owners(prompts).numpy(), present, limit, torch.Generator().manual_seed(seed))
    found = take(prompts, torch.from_numpy(places))
    return found._replace(category=torch.from_numpy(numbers)[found.category]), numbers


def test_what_does_not_fit_is_left_out_name_by_name_and_present_ones_last():
    """Of "[CLS] a b . c . d e f . [SEP]", whose last name is in an image, two names are 9 or 8 of the 11 tokens."""
    prompts = from_words(torch.arange(20.0).reshape(5, 4, 1), [1, 3, 2, 4, 1])
    seen = set()
    for seed in range(20):
        found, numbers = fitted(prompts, {2}, 9, seed)
        kept = np.flatnonzero(numbers >= 0).tolist()
        seen.add(tuple(kept))
        names = [[4.0, 5.0, 6.0], [8.0, 9.0], [12.0, 13.0, 14.0, 15.0]]
        expected = [0.0, *(value for category in kept for value in names[category]), 16.0]
        assert found.embed.flatten().tolist() == expected
        assert numbers[kept].tolist() == [0, 1]
        assert found.category.unique().tolist() == [-1, 0, 1]
        assert found.attend.shape == (len(expected),) * 2
    assert seen == {(0, 2), (1, 2)}


def test_one_name_stays_however_long_it_is():
    prompts = from_words(torch.zeros(2, 4, 1), [4, 4])
    found, numbers = fitted(prompts, {1}, 2, 0)
    assert numbers.tolist() == [-1, 0, -1]
    assert found.category.tolist() == [0, 0, 0, -1]
