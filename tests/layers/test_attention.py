import pytest
import torch
from torch import nn

from trex2_lightning.layers.attention import Attention, DeformableAttention


def test_attention_equals_torch_with_its_mask_inverted():
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in (ours.query, ours.key, ours.value)]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in (ours.query, ours.key, ours.value)]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    attend = torch.rand(2, 5, 7) > 0.5
    attend[..., 0] = True
    expected, _ = theirs(query, key, value, attn_mask=(~attend).repeat_interleave(4, 0))
    torch.testing.assert_close(ours(query, key, value, attend), expected)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_deformable_attention_equals_the_reference(coordinates, maps):
    grounding_dino = pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino")
    shapes = ((5, 7), (3, 4))
    tokens = sum(h * w for h, w in shapes)
    config = grounding_dino.GroundingDinoConfig(d_model=32, num_feature_levels=2)
    theirs = grounding_dino.GroundingDinoMultiscaleDeformableAttention(config, num_heads=4, n_points=3)
    ours = DeformableAttention(32, heads=4, levels=2, points=3)
    pairs = {
        "sampling_offsets": ours.offsets,
        "attention_weights": ours.weights,
        "value_proj": ours.value,
        "output_proj": ours.output,
    }
    for name, layer in pairs.items():
        nn.init.normal_(layer.weight, std=0.2)
        getattr(theirs, name).load_state_dict(layer.state_dict())
    query, image = torch.randn(2, 6, 32), torch.randn(2, tokens, 32)
    valid = torch.rand(2, tokens) > 0.2
    reference = torch.rand(2, 6, 2, coordinates)
    expected = theirs(
        hidden_states=query,
        attention_mask=valid,
        encoder_hidden_states=image,
        reference_points=reference,
        spatial_shapes=torch.tensor(shapes),
        spatial_shapes_list=list(shapes),
    )[0]
    torch.testing.assert_close(ours(query, reference, maps(image, valid, shapes)), expected)


def test_heads_start_in_different_directions():
    attention = DeformableAttention(8, heads=4, levels=1, points=2)
    first_points = attention.offsets.bias.view(4, 1, 2, 2)[:, 0, 0]
    torch.testing.assert_close(
        first_points, torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), atol=1e-6, rtol=0
    )


def test_deformable_attention_samples_in_float32_where_the_rest_is_half_precision(maps):
    shapes, attention = ((5, 7), (3, 4)), DeformableAttention(32, heads=4, levels=2, points=3)
    nn.init.normal_(attention.weights.weight)
    query, image, reference = torch.randn(2, 6, 32), torch.randn(2, 47, 32), torch.rand(2, 6, 2, 2)
    valid = torch.ones(2, 47, dtype=torch.bool)
    features = maps(image, valid, shapes)
    expected = attention(query, reference, features)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attention(query, reference, features)
    mixed.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in attention.parameters())
    half = attention.bfloat16()(query.bfloat16(), reference.bfloat16(), features._replace(tokens=image.bfloat16()))
    assert mixed.dtype == half.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), expected, rtol=0.1, atol=0.1)
    torch.testing.assert_close(half.float(), expected, rtol=0.2, atol=0.2)
