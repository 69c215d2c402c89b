import pytest
import torch

from trex2_lightning.ops.deform_attn import deformable_sampling

SHAPES = ((5, 7), (3, 4))


def random_inputs(dtype=torch.float32, heads=2, channels=3, queries=4, points=3):
    generator = torch.Generator().manual_seed(0)
    tokens = sum(h * w for h, w in SHAPES)
    value = torch.randn(2, tokens, heads, channels, dtype=dtype, generator=generator)
    locations = torch.rand(2, queries, heads, len(SHAPES), points, 2, dtype=dtype, generator=generator) * 1.4 - 0.2
    weights = torch.rand(2, queries, heads, len(SHAPES), points, dtype=dtype, generator=generator)
    return value, locations, weights


def test_equals_the_reference_implementation():
    grounding_dino = pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino")
    value, locations, weights = random_inputs()
    expected = grounding_dino.MultiScaleDeformableAttention()(
        value, torch.tensor(SHAPES), list(SHAPES), None, locations, weights, None
    )
    torch.testing.assert_close(deformable_sampling(value, SHAPES, locations, weights), expected)


def test_gradients_in_float64():
    inputs = [x.requires_grad_() for x in random_inputs(torch.float64)]
    assert torch.autograd.gradcheck(lambda v, p, w: deformable_sampling(v, SHAPES, p, w), inputs)


def test_a_point_on_a_token_reads_that_token():
    value = torch.arange(6.0).view(1, 6, 1, 1)
    locations = torch.tensor([1.5 / 3, 0.5 / 2]).view(1, 1, 1, 1, 1, 2)  # second column of the first row
    assert deformable_sampling(value, ((2, 3),), locations, torch.ones(1, 1, 1, 1, 1)).item() == 1
