import torch

from trex2_lightning.layers.decoder import BoxHead, Decoder
from trex2_lightning.structures import FeatureMaps

SIZES = {"width": 16, "heads": 2, "levels": 1, "points": 2, "ffn": 32, "dropout": 0.0}


def random_features(batch=1):
    return FeatureMaps(
        tokens=torch.randn(batch, 12, 16),
        pos=torch.randn(batch, 12, 16),
        valid=torch.ones(batch, 12, dtype=torch.bool),
        shapes=((3, 4),),
        levels=torch.tensor([[3, 4, 0]]),
        valid_ratios=torch.ones(batch, 1, 2),
        neck=torch.randn(batch, 12, 16),
    )


def test_boxes_start_where_they_are():
    boxes = torch.rand(1, 5, 4) * 0.8 + 0.1
    _, refined = Decoder(layers=3, **SIZES)(torch.randn(1, 5, 16), boxes, random_features(), None)
    torch.testing.assert_close(refined, boxes.expand(3, -1, -1, -1), rtol=1e-4, atol=1e-5)


def test_look_forward_twice():
    """The loss of a layer's box trains the layer before it, and none earlier (DINO, section 3.5)."""
    decoder = Decoder(layers=3, **SIZES)
    _, refined = decoder(torch.randn(1, 5, 16), torch.rand(1, 5, 4), random_features(), None)
    refined[2].sum().backward()
    bias_grads = [head.mlp[-1].bias.grad for head in decoder.box_heads]
    assert bias_grads[0].abs().sum() == 0
    assert bias_grads[1].abs().sum() > 0
    assert bias_grads[2].abs().sum() > 0


def test_queries_that_may_not_see_each_other_do_not():
    decoder = Decoder(layers=2, **SIZES)
    features, boxes = random_features(), torch.rand(1, 4, 4)
    attend = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()[None]
    content = torch.randn(1, 4, 16)
    changed = content.clone()
    changed[:, 2:] += 1
    before, _ = decoder(content, boxes, features, attend)
    after, _ = decoder(changed, boxes, features, attend)
    torch.testing.assert_close(before[:, :, :2], after[:, :, :2])
    assert not torch.allclose(before[:, :, 2:], after[:, :, 2:])


def test_box_head_moves_a_box_in_logit_space():
    head = BoxHead(8)
    torch.nn.init.constant_(head.mlp[-1].bias, 1.0)
    box = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(head(torch.zeros(1, 8), box), torch.full((1, 4), 1.0).sigmoid())
