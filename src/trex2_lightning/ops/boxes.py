"""Box formats, their inverse sigmoid, and overlap where `torchvision.ops` would wait for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size to corners."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) corners to centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of `x`, clamped to [eps, 1 - eps] as the DETR family does."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def generalized_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU of each xyxy box with its own other one: (..., 4), (..., 4) -> (...).

    As torchvision's `generalized_box_iou_loss`, which chooses the boxes that overlap and so waits for the device.
    Boxes may be shares of an image: what keeps from a division by zero is far below a small object's area.
    """
    area, other_area = (_area(x[..., 2:] - x[..., :2]) for x in (boxes, others))
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    overlap = _area((high - low).clamp(min=0))
    union = area + other_area - overlap
    low, high = torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:])
    hull = _area(high - low)
    return overlap / (union + 1e-12) - (hull - union) / (hull + 1e-12)


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]
