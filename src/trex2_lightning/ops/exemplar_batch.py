"""Exemplars of different categories and numbers to one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trex2_lightning.structures import Prompts


def stack_exemplars(
    shown: Sequence[Mapping[int, Tensor]], device: torch.device | None = None
) -> tuple[Tensor, Prompts]:
    """What each of B images shows as prompts, for all of them together.

    Args:
        shown: category to its boxes (m, 4), for each image.
        device: of the boxes.

    Returns:
        The U categories (U,) that any image shows, ascending, and `boxes` (B, U, M, 4), `box_valid` where an image
        shows them. U and M are at least 1: where nobody shows anything, category 0 stands there without exemplars.
    """
    categories = sorted({category for image in shown for category in image}) or [0]
    nothing = torch.zeros(1, 4, device=device)
    rows = [image.get(category, nothing[:0]) for image in shown for category in categories]
    boxes = pad_sequence([*rows, nothing], batch_first=True)[:-1]
    counts = torch.tensor([len(row) for row in rows], device=device)
    valid = torch.arange(boxes.shape[1], device=device) < counts[:, None]
    layout = (len(shown), len(categories), -1)
    prompts = Prompts(boxes=boxes.view(*layout, 4), box_valid=valid.view(layout))
    return torch.tensor(categories, device=device), prompts
