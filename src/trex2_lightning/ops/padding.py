"""Exemplars of different categories and numbers to one batch, and how much of a batch is padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trex2_lightning.structures import ExemplarKind, Exemplars


def stack_exemplars(
    shown: Sequence[Mapping[int, Tensor]], kind: ExemplarKind = "box", device: torch.device | None = None
) -> tuple[Tensor, Exemplars]:
    """What each of B images shows, for all of them together.

    Args:
        shown: category to its exemplars' boxes (m, 4), for each image.
        kind: of all exemplars.
        device: of the boxes.

    Returns:
        The U categories (U,) that any image shows, ascending, and the exemplars (B, U, M), valid where an image shows
        them. U and M are at least 1: where nobody shows anything, category 0 stands there without exemplars.
    """
    categories = sorted({category for image in shown for category in image}) or [0]
    nothing = torch.zeros(0, 4, device=device)
    boxes, valid = pad_boxes([image.get(category, nothing) for image in shown for category in categories])
    layout = (len(shown), len(categories), -1)
    return torch.tensor(categories, device=device), Exemplars(boxes.view(*layout, 4), valid.view(layout), kind)


def unpadded_share(valid: Tensor) -> Tensor:
    """Share of width and height that is not padding, of maps (B, H, W): (B, 2)."""
    return torch.stack([valid[:, 0].float().mean(1), valid[:, :, 0].float().mean(1)], -1)


def pad_boxes(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """N x (m, 4) -> (N, M, 4) and where they are real, (N, M) bool; M is the largest number, at least 1."""
    boxes = pad_sequence([*rows, rows[0].new_zeros(1, 4)], batch_first=True)[:-1]
    counts = torch.tensor([len(row) for row in rows], device=boxes.device)
    return boxes, torch.arange(boxes.shape[1], device=boxes.device) < counts[:, None]
