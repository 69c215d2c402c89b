from __future__ import annotations

import math

import pytest
import torch

from trex2_lightning.ops.aggregation import weighted_average
from trex2_lightning.ops.prompt_tokens import average, from_vectors


def test_a_vector_that_is_unlike_the_others_has_little_say() -> None:
    """Cosines with the mean of the others: of (1, 0) twice with (1, 1) 1 / sqrt(2), of (0, 1) with (2, 0) 0."""
    vectors = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    found = weighted_average(from_vectors(vectors), temperature=0.5).embed[0, 0]
    alike = math.exp(0.5**0.5 / 0.5)
    assert found.tolist() == pytest.approx([2 * alike / (2 * alike + 1), 1 / (2 * alike + 1)])


def test_only_valid_vectors_count_and_one_or_two_count_alike() -> None:
    vectors = torch.tensor([[[1.0, 0.0], [2.0, 4.0]], [[0.0, 3.0], [9.0, 9.0]], [[7.0, 7.0], [9.0, 9.0]]])
    valid = torch.tensor([[True, True], [True, False], [False, False]])
    found = weighted_average(from_vectors(vectors, valid))
    assert found.embed.tolist() == [[[0.5, 1.5], [2.0, 4.0]]]
    assert found.valid.tolist() == [[True, True]]


def test_a_category_without_vectors_stays_without() -> None:
    nothing = from_vectors(torch.full((3, 1, 2), 5.0), torch.zeros(3, 1, dtype=torch.bool))
    found = weighted_average(nothing)
    assert found.embed.tolist() == average(nothing).embed.tolist() == [[[0, 0]]]
    assert not found.valid.any()
