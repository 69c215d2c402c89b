"""Query selection and the similarity head: in which precision, and what a step keeps for its gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trex2_lightning.models.selection import QuerySelection, SimilarityHead
from trex2_lightning.ops.anchors import anchors
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.structures import FeatureMaps, PromptTokens

SHAPES = ((6, 8), (3, 4))


@pytest.fixture
def features(maps: Callable[..., FeatureMaps]) -> FeatureMaps:
    torch.manual_seed(0)
    tokens = torch.randn(2, 60, 16, requires_grad=True)
    return maps(tokens, torch.ones(2, 60, dtype=torch.bool), SHAPES)


@pytest.fixture
def prompts() -> PromptTokens:
    return from_vectors(torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1)))


def selection() -> QuerySelection:
    torch.manual_seed(2)
    made = QuerySelection(16, 7, 0.05, 0.01)
    for parameter in made.box_head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize("prior", [None, 0.01])
def test_logits_are_computed_in_float32_where_the_rest_is_half_precision(prior: float | None) -> None:
    head, x = SimilarityHead(prior), torch.randn(1, 6, 16)
    prompts = from_vectors(torch.randn(1, 3, 16))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = head(x, prompts)
    assert mixed.dtype == torch.float32
    assert mixed.equal(head(x, prompts))


@pytest.mark.parametrize("prior", [None, 0.01])
def test_each_prompt_may_have_a_bias_that_is_linear_in_its_vector(prior: float | None) -> None:
    torch.manual_seed(0)
    plain, own = SimilarityHead(prior), SimilarityHead(prior, 16)
    x, prompts = torch.randn(2, 6, 16), from_vectors(torch.randn(1, 3, 16))
    assert own(x, prompts).equal(plain(x, prompts))  # at the start
    assert own.of_prompt is not None
    torch.nn.init.normal_(own.of_prompt)
    added = prompts.embed @ own.of_prompt / (1 if prior is None else 4)
    torch.testing.assert_close(own(x, prompts), plain(x, prompts) + added[:, None])


def test_gradients_are_those_of_scoring_every_token(features: FeatureMaps, prompts: PromptTokens) -> None:
    made = selection()
    wanted = [features.tokens, *made.project.parameters(), *made.norm.parameters(), made.head.bias]
    _, proposals = made(features, prompts)

    boxes, usable = anchors(features.shapes, features.valid, features.valid_ratios, 0.05)
    memory = made.norm(made.project(features.tokens.masked_fill(~usable[..., None], 0)))
    logits = made.head(memory, prompts)
    chosen = logits.amax(-1).masked_fill(~usable, -torch.inf).topk(7).indices[..., None]
    logits = logits.gather(1, chosen.expand(-1, -1, 5))
    refined = made.box_head(memory.gather(1, chosen.expand(-1, -1, 16)), boxes.gather(1, chosen.expand(-1, -1, 4)))
    torch.testing.assert_close(proposals.logits[0], logits)
    torch.testing.assert_close(proposals.boxes[0], refined)
    losses = [proposals.logits.sin().sum() + proposals.boxes.sin().sum(), logits.sin().sum() + refined.sin().sum()]
    torch.testing.assert_close(*(torch.autograd.grad(loss, wanted) for loss in losses))


def test_no_weight_that_was_cast_without_a_gradient_is_used_again(features: FeatureMaps, prompts: PromptTokens) -> None:
    """PyTorch before 2.10 takes it out of autocast's cache, and the projection would never learn."""
    made, found = selection(), []
    made.project.register_forward_pre_hook(
        lambda *_: found.append((torch.is_grad_enabled(), torch.is_autocast_cache_enabled()))
    )
    with torch.autocast("cpu", torch.bfloat16):
        made(features, prompts)
    assert found == [(False, False), (True, True)]


def test_nothing_of_all_tokens_is_kept_for_the_gradient(features: FeatureMaps, prompts: PromptTokens) -> None:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        selection()(features, prompts)
    floats = [x for x in kept if x.is_floating_point()]
    assert floats
    assert not [x.shape for x in floats if 60 in x.shape]
