import pytest
import torch
from torchvision.ops import generalized_box_iou_loss

from trex2_lightning.ops.boxes import cxcywh_to_xyxy, generalized_iou, inverse_sigmoid, xyxy_to_cxcywh


def test_formats_round_trip():
    boxes = torch.tensor([[0.5, 0.4, 0.2, 0.6]])
    torch.testing.assert_close(cxcywh_to_xyxy(boxes), torch.tensor([[0.4, 0.1, 0.6, 0.7]]))
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)


def test_inverse_sigmoid_inverts_and_stays_finite():
    x = torch.tensor([-3.0, 0.0, 4.0])
    torch.testing.assert_close(inverse_sigmoid(x.sigmoid()), x, rtol=1e-4, atol=1e-4)
    least, most, *beyond = inverse_sigmoid(torch.tensor([0.0, 1.0, -1.0, 2.0])).tolist()
    assert -12 < least < -11 < 11 < most < 12
    assert beyond == [least, most]


@pytest.mark.parametrize("side", [1.0, 0.001])
def test_generalized_iou_and_its_gradient_are_torchvision_s(side):
    """Of boxes that overlap, that lie apart, and of one in the other; small ones too."""
    boxes, others = (cxcywh_to_xyxy(side * (0.1 + torch.rand(200, 4, dtype=torch.float64))) for _ in range(2))
    others[:20] = boxes[:20]
    boxes.requires_grad_()
    expected = 1 - generalized_box_iou_loss(boxes, others, eps=1e-12)
    found = generalized_iou(boxes, others)
    assert found.min() < 0 < found.max()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(x[20:].sum(), boxes, retain_graph=True) for x in (found, expected)), rtol=1e-6, atol=1e-6
    )
