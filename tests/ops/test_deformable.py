import pytest
import torch

from trex2_lightning.ops.deformable import deformable_sampling, sample_grid, sample_rows

SHAPES = ((5, 7), (3, 4), (1, 2), (1, 1))
WAYS = pytest.mark.parametrize("sample", [sample_rows, sample_grid])


def random_inputs(dtype=torch.float32, heads=2, channels=3, queries=4, points=3):
    generator = torch.Generator().manual_seed(0)
    tokens = sum(h * w for h, w in SHAPES)
    value = torch.randn(2, tokens, heads, channels, dtype=dtype, generator=generator)
    locations = torch.rand(2, queries, heads, len(SHAPES), points, 2, dtype=dtype, generator=generator) * 1.4 - 0.2
    weights = torch.rand(2, queries, heads, len(SHAPES), points, dtype=dtype, generator=generator)
    return value, locations, weights


@WAYS
def test_equals_the_reference_implementation(sample):
    grounding_dino = pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino")
    value, locations, weights = random_inputs()
    expected = grounding_dino.MultiScaleDeformableAttention()(
        value, torch.tensor(SHAPES), list(SHAPES), None, locations, weights, None
    )
    torch.testing.assert_close(sample(value, SHAPES, locations, weights), expected)


@WAYS
def test_gradients_in_float64(sample):
    inputs = [x.requires_grad_() for x in random_inputs(torch.float64, queries=3, points=2)]
    assert torch.autograd.gradcheck(lambda v, p, w: sample(v, SHAPES, p, w), inputs)


def test_both_ways_have_the_same_values_and_gradients():
    inputs = [x.requires_grad_() for x in random_inputs(queries=50, channels=8)]
    found, expected = (sample(inputs[0], SHAPES, *inputs[1:]) for sample in (sample_rows, sample_grid))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    change = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    found, expected = (torch.autograd.grad(out, inputs, change) for out in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_in_parts_where_no_gradient_is_taken():
    inputs = random_inputs(queries=2500, channels=8)
    torch.testing.assert_close(sample_rows(inputs[0], SHAPES, *inputs[1:]), sample_grid(inputs[0], SHAPES, *inputs[1:]))


@WAYS
@pytest.mark.parametrize("place", [-1e30, -0.6, 1.6, 1e30])
def test_outside_the_map_there_is_nothing_to_see_and_nowhere_to_go(sample, place):
    inputs = [x.requires_grad_() for x in random_inputs()]
    locations = torch.full_like(inputs[1], place).requires_grad_()
    out = sample(inputs[0] + 5, SHAPES, locations, inputs[2])
    assert not out.any()
    assert not any(gradient.any() for gradient in torch.autograd.grad(out.sum(), [inputs[0], locations, inputs[2]]))


def test_a_place_that_is_no_number_spoils_its_own_query_alone():
    """A training that diverges has to be told from its loss, not by an index out of range."""
    value, locations, weights = random_inputs()
    expected = deformable_sampling(value, SHAPES, locations, weights)
    locations[1, 2, 0, 0, 0, 0] = torch.nan
    found = deformable_sampling(value, SHAPES, locations, weights)
    spoiled = torch.zeros_like(found, dtype=torch.bool)
    spoiled[1, 2, :3] = True  # the three channels of the first head
    assert found[spoiled].isnan().all()
    torch.testing.assert_close(found[~spoiled], expected[~spoiled])


@WAYS
def test_a_point_on_a_token_reads_that_token(sample):
    value = torch.arange(6.0).view(1, 6, 1, 1)
    locations = torch.tensor([1.5 / 3, 0.5 / 2]).view(1, 1, 1, 1, 1, 2)  # second column of the first row
    assert sample(value, ((2, 3),), locations, torch.ones(1, 1, 1, 1, 1)).item() == 1


def test_a_point_on_a_token_may_still_move():
    """Where attention starts all points lie on tokens: a gradient of zero there would keep them for ever."""
    value = torch.arange(6.0).view(1, 6, 1, 1)
    locations = torch.tensor([1.5 / 3, 0.5 / 2]).view(1, 1, 1, 1, 1, 2).requires_grad_()
    for sample in (sample_rows, sample_grid):
        out = sample(value, ((2, 3),), locations, torch.ones(1, 1, 1, 1, 1))
        [gradient] = torch.autograd.grad(out, locations)
        torch.testing.assert_close(gradient.flatten(), torch.tensor([3.0, 6.0]))  # one column is 1 / 3, a row adds 3
