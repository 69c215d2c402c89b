"""Focal loss over prompt tokens, against values worked out on paper."""

from math import inf, log
from typing import Any

import pytest
import torch

from trex2_lightning.losses.classification import focal_loss, known_tokens, presence_loss, token_targets
from trex2_lightning.structures import PromptTokens, Targets


def tokens(category: list[int], valid: list[list[bool]]) -> PromptTokens:
    num = len(category)
    return PromptTokens(
        embed=torch.zeros(len(valid), num, 4),
        valid=torch.tensor(valid),
        category=torch.tensor(category),
        attend=torch.ones(num, num, dtype=torch.bool),
        position=torch.zeros(num, dtype=torch.int64),
    )


def test_a_target_is_spread_over_all_tokens_of_its_category() -> None:
    category = torch.tensor([0, 0, -1, 1, -1])  # "red star . ring ."
    assert token_targets(torch.tensor([0, 1, -1]), category).int().tolist() == [
        [1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ]


def test_padding_and_unjudged_categories_are_unknown_and_separators_are_nothing() -> None:
    prompts = tokens([0, 0, -1, 1, 1], [[True, True, True, True, False]])
    assert known_tokens(prompts, None).tolist() == [[True, True, True, True, False]]
    judged = torch.tensor([[True, True], [False, True], [True, False]])
    assert known_tokens(prompts, judged).int().tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 0], [1, 1, 1, 0, 0]]


def test_a_separator_is_nothing_whatever_is_judged_of_the_categories() -> None:
    assert known_tokens(tokens([0, -1], [[True, True]]), torch.zeros(1, 1).bool()).tolist() == [[False, True]]


def test_value_at_even_odds() -> None:
    """At p = 1/2 the loss is alpha / 4 log 2 for a positive and (1 - alpha) / 4 log 2 for a negative."""
    loss = focal_loss(torch.zeros(2, 3), torch.eye(3)[:2].bool(), torch.tensor(True), alpha=0.25, gamma=2.0)
    assert loss.item() == pytest.approx((2 * 0.25 + 4 * 0.75) / 4 * log(2), rel=1e-6)


def test_value_without_focusing_is_cross_entropy() -> None:
    logit = torch.tensor([log(3.0)])  # p = 3/4
    known = torch.tensor([True])
    assert focal_loss(logit, known, known, alpha=0.5, gamma=0.0).item() == pytest.approx(log(4 / 3) / 2, rel=1e-5)
    assert focal_loss(logit, ~known, known, alpha=0.5, gamma=0.0).item() == pytest.approx(log(4) / 2, rel=1e-5)


@pytest.mark.parametrize("hidden", [0.0, 50.0, inf, -inf])
def test_masked_logits_change_neither_value_nor_gradient(hidden: float) -> None:
    logits = torch.tensor([[0.3, hidden], [-0.2, hidden]], requires_grad=True)
    mask = torch.tensor([[True, False]])
    loss = focal_loss(logits, torch.tensor([[True, True], [False, False]]), mask, alpha=0.25, gamma=2.0)
    expected = focal_loss(logits[:, :1], torch.tensor([[True], [False]]), mask[:, :1], alpha=0.25, gamma=2.0)
    assert loss.item() == pytest.approx(expected.item())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[:, 1].tolist() == [0, 0]
    assert (gradient[:, 0] != 0).all()


def test_gradient_is_the_derivative() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(2, 3, 4, generator=generator) < 0.4
    mask = torch.rand(2, 1, 4, generator=generator) < 0.7
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets, mask, alpha=0.25, gamma=2.0), logits)


# Presence


def has(*labels: int) -> Targets:
    return Targets(torch.tensor(labels, dtype=torch.int64), torch.rand(len(labels), 4), 0)


def presence(logits: list[list[float]], targets: list[Targets], prompts: PromptTokens, judged: Any = None) -> float:
    known = known_tokens(prompts, None if judged is None else torch.tensor(judged))
    return presence_loss(torch.tensor(logits), targets, prompts, known).item()


def test_presence_costs_the_mean_cross_entropy_over_categories_whatever_their_words() -> None:
    """p = 3/4, 1/2 and 1/4 for a category of two words, one of one word and another; two boxes are one presence."""
    prompts = tokens([0, 0, -1, 1, 2], [[True] * 5])
    logits = [[log(3.0), log(3.0), 9.0, 0.0, -log(3.0)]]
    assert presence(logits, [has(0, 0)], prompts) == pytest.approx((log(4 / 3) + log(2) + log(4 / 3)) / 3)
    assert presence(logits, [has(2, 1)], prompts) == pytest.approx((log(4) + log(2) + log(4)) / 3)


def test_presence_is_asked_where_a_category_is_judged_or_marked_and_valid() -> None:
    prompts = tokens([0, 1, 2], [[True, True, False]] * 2)
    logits = [[log(3.0), 0.0, 50.0], [log(3.0), 0.0, -50.0]]
    nothing, some = [[False] * 3] * 2, [[True, False, True], [False] * 3]
    assert presence(logits, [has(2), has()], prompts, nothing) == 0
    assert presence(logits, [has(), has(2)], prompts, some) == pytest.approx(log(4))
    assert presence(logits, [has(), has(1)], prompts, some) == pytest.approx((log(4) + log(2)) / 2)
