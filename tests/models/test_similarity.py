"""How boxes are compared with exemplars by what a frozen network sees of them, and what is learned of kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from trex2_lightning.config import AppearanceConfig, BackboneConfig
from trex2_lightning.models import appearance
from trex2_lightning.models.appearance import Appearance
from trex2_lightning.structures import ExemplarAppearance


def exemplars_of(
    vectors: list[list[float]], category: list[int], valid: list[bool] | None = None
) -> ExemplarAppearance:
    flags = torch.tensor([valid or [True] * len(category)])
    return ExemplarAppearance(torch.tensor([vectors]), flags, torch.tensor(category))


@pytest.fixture
def plane() -> Appearance:
    """One that compares vectors of two numbers."""
    plane = Appearance(AppearanceConfig("backbone"), BackboneConfig("test_resnet"))
    plane.mean, plane.transform = torch.zeros(2), torch.eye(2)
    return plane


def test_similarity_is_a_soft_maximum_that_counts_no_exemplars(plane: Appearance) -> None:
    boxes = torch.tensor([[[1.0, 0.0]]])
    one = plane.similarity(boxes, exemplars_of([[0.6, 0.8]], [0]), 3)
    torch.testing.assert_close(one, torch.tensor([[[0.6, -torch.inf, -torch.inf]]]))
    twice = plane.similarity(boxes, exemplars_of([[3.0, 4.0], [0.6, 0.8], [0.0, 1.0]], [0, 0, 1]), 3)
    torch.testing.assert_close(twice, torch.tensor([[[0.6, 0.0, -torch.inf]]]), rtol=0, atol=1e-6)
    near = plane.similarity(boxes, exemplars_of([[1.0, 0.0], [0.0, 1.0]], [2, 2]), 3)[0, 0, 2]
    assert 0.95 < near < 1
    hidden = plane.similarity(boxes, exemplars_of([[1.0, 0.0], [0.6, 0.8]], [0, 0], [False, True]), 1)
    torch.testing.assert_close(hidden, torch.tensor([[[0.6]]]))


def compared_one_by_one(network: Appearance, boxes: Tensor, shown: ExemplarAppearance, categories: int) -> Tensor:
    """The formula, written naively."""
    found = torch.full((*boxes.shape[:2], categories), -torch.inf)
    temperature = float(network.temperature)
    for image, category in [(i, c) for i in range(len(boxes)) for c in range(categories)]:
        own = image if len(shown.vectors) > 1 else 0
        exemplars = shown.vectors[own][shown.valid[own] & (shown.category == category)]
        for number, box in enumerate(boxes[image] if len(exemplars) else ()):
            box, *others = (F.normalize((v - network.mean) @ network.transform, dim=-1) for v in (box, *exemplars))
            cosines = torch.stack([box @ other for other in others]).double()
            found[image, number, category] = temperature * (cosines / temperature).exp().mean().log()
    return found


@pytest.mark.parametrize("most", [1, 50, 2**22])
@pytest.mark.parametrize("size", [1, 2])
def test_similarity_is_the_naive_formula_s_in_parts_of_any_size(
    plane: Appearance, monkeypatch: pytest.MonkeyPatch, size: int, most: int
) -> None:
    monkeypatch.setattr(appearance, "MOST_COSINES", most)
    generator = torch.Generator().manual_seed(0)
    plane.mean = torch.randn(6, generator=generator) * 0.1
    plane.transform = torch.eye(6) + 0.3 * torch.randn(6, 6, generator=generator)
    boxes = F.normalize(torch.randn(2, 4, 6, generator=generator), dim=-1)
    vectors = F.normalize(torch.randn(size, 17, 6, generator=generator), dim=-1)
    category = torch.randint(0, 5, (17,), generator=generator).where(torch.arange(17) > 0, 6)  # none has 5
    shown = ExemplarAppearance(vectors, torch.rand(size, 17, generator=generator) > 0.3, category)
    expected = compared_one_by_one(plane, boxes, shown, 8)
    for exemplars in (shown, plane.whitened(shown)):
        torch.testing.assert_close(plane.similarity(boxes, exemplars, 8), expected, rtol=1e-5, atol=1e-6)
    assert (expected == -torch.inf).any()
    assert (expected > -torch.inf).any()


def test_opposite_boxes_are_told_from_what_is_not_asked_for(plane: Appearance) -> None:
    """e to the power of -2 / temperature is a number."""
    plane.temperature.fill_(0.03)
    found = plane.similarity(torch.tensor([[[1.0, 0.0]]]), exemplars_of([[-1.0, 0.0]], [0]), 1)
    torch.testing.assert_close(found, torch.tensor([[[-1.0]]]))


def test_cosines_of_all_boxes_and_exemplars_never_lie_in_memory_at_once(
    plane: Appearance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appearance, "MOST_COSINES", 200)
    largest = Largest()
    category = torch.arange(3).repeat_interleave(10)
    shown = ExemplarAppearance(torch.randn(1, 30, 2), torch.ones(1, 30, dtype=torch.bool), category)
    with largest:
        plane.similarity(torch.randn(4, 10, 2), shown, 3)
    assert largest.numel <= 200 < 4 * 10 * 30


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that is computed."""

    numel = 0

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_exemplars_of_each_image_are_its_own(plane: Appearance) -> None:
    boxes = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    shown = ExemplarAppearance(
        torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([[True], [True]]), torch.tensor([0])
    )
    torch.testing.assert_close(plane.similarity(boxes, shown, 1)[:, 0, 0], torch.tensor([1.0, 0.0]))


def test_what_differs_within_kinds_is_learned_to_be_of_no_matter(plane: Appearance) -> None:
    """The first number is of the kind, the second is noise of ten times its size."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(40).repeat(25)
    noise = torch.randn(1000, 2, generator=generator) * torch.tensor([0.1, 10.0])
    vectors = torch.stack([torch.linspace(-1, 1, 40)[kinds], torch.zeros(1000)], -1) + noise
    boxes, shown = torch.tensor([[[0.9, 8.0]]]), exemplars_of([[0.9, -8.0], [-0.9, 8.0]], [0, 1])
    before = plane.similarity(boxes, shown, 2)[0, 0]
    assert before[1] > before[0]
    plane.fit(vectors, kinds, shrinkage=0.0)
    after = plane.similarity(boxes, shown, 2)[0, 0]
    assert after[0] > after[1]
    within = (vectors - vectors.view(25, 40, 2).mean(0)[kinds]) @ plane.transform
    torch.testing.assert_close(within.T @ within / 1000, torch.eye(2), rtol=1e-3, atol=1e-3)


def test_exemplars_are_compared_with_all_digits_under_autocast(plane: Appearance) -> None:
    boxes, shown = torch.randn(1, 50, 2), exemplars_of([[0.6, 0.8], [0.8, -0.6]], [0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        found = plane.similarity(boxes, shown, 2)
    assert torch.equal(found, plane.similarity(boxes, shown, 2))


def test_how_sharply_likeness_tells_kinds_apart_is_what_makes_known_boxes_likeliest(plane: Appearance) -> None:
    """Boxes of two kinds between exemplars of both, one of which is near the other kind's."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    angles = 0.2 + labels + 0.4 * torch.randn(60, generator=generator)
    boxes = torch.stack([angles.cos(), angles.sin()], -1)
    ends = torch.tensor([0.0, 1.0, 1.2, 1.4])
    shown = exemplars_of(torch.stack([ends.cos(), ends.sin()], -1).tolist(), [0, 0, 1, 1])
    strange = torch.full((5,), 2)  # of a category without exemplars
    plane.fit_scale(torch.cat([boxes, boxes[:5]]), torch.cat([labels, strange]), shown, 3)

    def loss() -> float:
        share = plane.log_share(plane.similarity(boxes[None], shown, 3))[0]
        return -float(share.gather(1, labels[:, None]).mean())

    found = loss()
    others = []
    for scale in appearance.LOGIT_SCALES:
        plane.logit_scale.fill_(scale)
        others.append(loss())
    assert found == pytest.approx(min(others))
    assert max(others) > found + 0.1
    plane.logit_scale.fill_(33)
    plane.fit_scale(boxes[:5], strange, shown, 3)
    assert float(plane.logit_scale) == 33, "nothing is known"
