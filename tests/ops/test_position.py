import pytest
import torch

from trex2_lightning.ops.position import box_embedding, map_embedding


def test_map_embedding_equals_the_reference_with_padding():
    grounding_dino = pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino")
    valid = torch.zeros(2, 6, 8, dtype=torch.bool)
    valid[0, :6, :5] = True
    valid[1, :4, :8] = True
    config = grounding_dino.GroundingDinoConfig(d_model=32, positional_embedding_temperature=20)
    reference = grounding_dino.GroundingDinoSinePositionEmbedding(config)
    expected = reference(torch.zeros(2, 1, 6, 8), valid).flatten(2).transpose(1, 2)
    torch.testing.assert_close(map_embedding(valid, 32), expected)


def test_box_embedding_equals_the_reference():
    grounding_dino = pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino")
    boxes = torch.rand(2, 3, 4)
    expected = grounding_dino.encode_sinusoidal_position_embedding(boxes, num_pos_feats=16)
    torch.testing.assert_close(box_embedding(boxes, 16), expected)


def test_a_point_is_embedded_as_the_centre_of_a_box():
    boxes = torch.rand(5, 4)
    torch.testing.assert_close(box_embedding(boxes[:, :2], 8), box_embedding(boxes, 8)[:, :16])
