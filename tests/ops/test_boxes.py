import torch

from trex2_lightning.ops.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh


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
