"""Values on paper, who takes part, and where the gradients go."""

from math import exp, log

import pytest
import torch
from torch import Tensor

from trex2_lightning.config import AlignmentConfig
from trex2_lightning.losses.alignment import alignment_loss, relation_loss

LITERAL = {"scope": "image", "normalize": False, "temperature": 1.0}  # T-Rex2, equation 9
PAPER = AlignmentConfig(**LITERAL)
DEFAULT = AlignmentConfig()
VISUAL = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # (1, 2, 2)
TEXT = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
BOTH = torch.ones(1, 2, dtype=torch.bool)


def softplus(x: float) -> float:
    """-log softmax of the first of two logits, the second of which is `x` larger."""
    return log(1 + exp(x))


def random_case(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(3, 5, 4, generator=generator)
    text = torch.randn(1, 5, 4, generator=generator)
    shown = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 1, 0]]).bool()
    return visual, text, shown


def test_values_on_paper() -> None:
    """Dot products: visual 0 has 2 and 0, visual 1 has 0 and 2; both win by 2."""
    torch.testing.assert_close(alignment_loss(VISUAL, TEXT, BOTH, PAPER), torch.tensor(softplus(-2)))


def test_direction_is_from_visual_to_text() -> None:
    """Logits [[2, 1], [0, 0]]: the rows lose softplus(-1) and softplus(0), the columns softplus(-2) and softplus(1)."""
    visual = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    rows = (softplus(-1) + softplus(0)) / 2
    columns = (softplus(-2) + softplus(1)) / 2
    torch.testing.assert_close(alignment_loss(visual, TEXT, BOTH, PAPER), torch.tensor(rows))
    both = alignment_loss(visual, TEXT, BOTH, AlignmentConfig(**LITERAL, symmetric=True))
    torch.testing.assert_close(both, torch.tensor((rows + columns) / 2))


def test_temperature_and_normalisation() -> None:
    warm = alignment_loss(VISUAL, TEXT, BOTH, AlignmentConfig(**LITERAL | {"temperature": 4.0}))
    torch.testing.assert_close(warm, torch.tensor(softplus(-0.5)))
    cosine = alignment_loss(VISUAL, TEXT, BOTH, AlignmentConfig(temperature=0.5))
    torch.testing.assert_close(cosine, torch.tensor(softplus(-2)))


def test_by_default_one_category_is_told_from_a_phrase_that_nothing_shows() -> None:
    """Cosines 1 and 0 over 0.1; an image that is alone with its category has nothing to tell it from."""
    one = torch.tensor([[True, False]])
    torch.testing.assert_close(alignment_loss(VISUAL, TEXT, one, DEFAULT), torch.tensor(softplus(-10)))
    assert alignment_loss(VISUAL, TEXT, one, AlignmentConfig(scope="image")) == 0


def test_a_phrase_that_nothing_shows_is_no_candidate_of_the_other_direction() -> None:
    """The one text vector that has a visual one has nothing else to choose."""
    one = torch.tensor([[True, False]])
    both = alignment_loss(VISUAL, TEXT, one, AlignmentConfig(symmetric=True))
    torch.testing.assert_close(both, alignment_loss(VISUAL, TEXT, one, DEFAULT) / 2)


def test_a_trained_temperature_is_in_the_place_of_the_fixed_one() -> None:
    temperature = torch.tensor(0.5, requires_grad=True)
    visual = torch.tensor([[[1.0, 1.0], [0.0, 2.0]]])
    loss = alignment_loss(visual, TEXT, BOTH, DEFAULT, temperature)
    torch.testing.assert_close(loss, alignment_loss(visual, TEXT, BOTH, AlignmentConfig(temperature=0.5)))
    (warmer,) = torch.autograd.grad(loss, temperature)
    assert warmer > 0, "the one that is right by far would gain by a colder one"


def test_categories_of_other_images_are_no_candidates() -> None:
    """An image's loss is that of the image alone with its own categories."""
    visual, text, shown = random_case()
    alone = [alignment_loss(visual[[i]][:, s], text[:, s], torch.ones(1, int(s.sum())).bool(), PAPER) * s.sum()
             for i, s in enumerate(shown) if i != 1]  # fmt: skip
    torch.testing.assert_close(alignment_loss(visual, text, shown, PAPER), sum(alone) / 5)


@pytest.mark.parametrize("shown", [[[False, False]], [[True, False]]])
@pytest.mark.parametrize("symmetric", [False, True])
def test_fewer_than_two_categories_add_nothing_but_touch_both_sides(shown: list[list[bool]], symmetric: bool) -> None:
    visual, text = VISUAL.clone().requires_grad_(), TEXT.clone().requires_grad_()
    loss = alignment_loss(visual, text, torch.tensor(shown), AlignmentConfig(**LITERAL, symmetric=symmetric))
    gradients = torch.autograd.grad(loss, [visual, text])
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients)


def test_what_was_not_shown_changes_nothing_even_if_it_is_not_a_number() -> None:
    visual, text, shown = random_case()
    expected = alignment_loss(visual, text, shown, PAPER)
    broken = visual.masked_fill(~shown[..., None], torch.nan).requires_grad_()
    text.requires_grad_()
    loss = alignment_loss(broken, text, shown, PAPER)
    torch.testing.assert_close(loss, expected)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, [broken, text]))


@pytest.mark.parametrize("loss", [alignment_loss, relation_loss])
def test_order_of_categories_does_not_matter(loss) -> None:
    visual, text, shown = random_case()
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(
        loss(visual[:, order], text[:, order], shown[:, order], PAPER), loss(visual, text, shown, PAPER)
    )


def slowly(visual: Tensor, text: Tensor, shown: Tensor, config: AlignmentConfig) -> Tensor:
    """Anchor by anchor: what its own phrase lacks of all candidates' weight."""
    losses = []
    for image, seen in enumerate(shown.tolist()):
        candidates = [c for c in range(len(seen)) if config.scope == "step" or seen[c]]
        for anchor in [c for c in range(len(seen)) if seen[c] and len(candidates) > 1]:
            weights = []
            for candidate in candidates:
                one, other = visual[image, anchor], text[0, candidate]
                size = one.norm() * other.norm() if config.normalize else 1
                weights.append((one @ other / size / config.temperature).exp())
            losses.append(-(weights[candidates.index(anchor)] / sum(weights)).log())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("config", [PAPER, DEFAULT])
def test_loss_and_gradients_are_those_of_the_plain_form(config: AlignmentConfig) -> None:
    visual, text, shown = random_case()
    sides = [visual.double().requires_grad_(), text.double().requires_grad_()]
    found, expected = (loss(*sides, shown, config) for loss in (alignment_loss, slowly))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, sides) for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("config", [PAPER, DEFAULT, AlignmentConfig(symmetric=True)])
def test_gradient_is_the_derivative(config: AlignmentConfig) -> None:
    visual, text, shown = random_case()
    inputs = [visual.double().requires_grad_(), text.double().requires_grad_()]
    assert torch.autograd.gradcheck(lambda v, t: alignment_loss(v, t, shown, config), inputs)
    assert torch.autograd.gradcheck(lambda v: relation_loss(v, text.double(), shown, config), inputs[:1])


def test_gradient_reaches_both_sides_of_the_alignment_and_one_of_the_relation() -> None:
    visual, text, shown = random_case()
    visual.requires_grad_()
    text.requires_grad_()
    for_visual, for_text = torch.autograd.grad(alignment_loss(visual, text, shown, PAPER), [visual, text])
    assert for_visual.any(-1).tolist() == [[True] * 3 + [False] * 2, [False] * 5, [False, True, False, True, False]]
    assert for_text[0].any(-1).tolist() == [True, True, True, True, False]
    for_visual, for_text = torch.autograd.grad(
        relation_loss(visual, text, shown, PAPER), [visual, text], allow_unused=True
    )
    assert for_visual.any(-1).tolist() == shown.tolist()
    assert for_text is None


def test_relation_on_paper() -> None:
    """Texts at right angles (cosine 0), visual prototypes alike (cosine 1): half against 1 / (1 + e^-1)."""
    config = AlignmentConfig(text_temperature=1.0, visual_temperature=0.5)
    visual = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [9.0, 9.0]]])
    shown = torch.tensor([[True, True], [True, False]])
    torch.testing.assert_close(relation_loss(visual, TEXT, shown, config), torch.tensor(log(2)))
    parted = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])  # cosines 1 and 0: the logits differ by 2, the soft labels by 1
    wanted = 1 / (1 + exp(-1))
    torch.testing.assert_close(
        relation_loss(parted, TEXT, BOTH, config), torch.tensor(wanted * softplus(-2) + (1 - wanted) * softplus(2))
    )


def test_a_category_that_nobody_shows_has_no_part_in_the_relation() -> None:
    visual, text, shown = random_case()
    kept = shown.any(0)
    assert not kept.all()
    alone = relation_loss(visual[:, kept], text[:, kept], shown[:, kept], PAPER)
    torch.testing.assert_close(relation_loss(visual, text, shown, PAPER), alone)


def test_relation_without_exemplars_is_a_zero_that_depends_on_the_visual_side() -> None:
    visual = VISUAL.clone().requires_grad_()
    loss = relation_loss(visual, TEXT, torch.zeros_like(BOTH), PAPER)
    assert loss == 0
    assert not torch.autograd.grad(loss, visual)[0].any()
