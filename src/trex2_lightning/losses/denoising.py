"""Contrastive denoising: noised copies of the ground truth as extra queries (DINO section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trex2_lightning.config import DenoisingConfig
from trex2_lightning.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from trex2_lightning.structures import NoisedQueries, Targets


def noise_queries(
    targets: Sequence[Targets],
    num_categories: int,
    num_queries: int,
    config: DenoisingConfig,
    generator: torch.Generator,
) -> NoisedQueries | None:
    """Noise the targets of a batch, in as many groups as `config.queries` has room for, at least one.

    A group holds M positive slots and then M negative ones, M being the largest number of targets in an image; slot
    j of either half is made of target j, and slots beyond an image's targets are not valid. Of an image with more than
    `config.limit` targets so many are drawn: attention costs the square of N. A positive's edges move
    by less than `box_noise` times half the box's side, a negative's by at least that and less than twice it; edges
    that cross leave a side of length zero, as in DINO. A batch without any target has one group of M = 1, so that the
    denoising parameters take part in every step on every rank.

    Args:
        targets: B images.
        num_categories: size of the batch vocabulary, from which false labels are drawn.
        num_queries: Q, the real queries that the decoder puts after the noised ones.
        config: how many queries and how much noise.
        generator: of the CPU; all random numbers come from it.

    Returns:
        N = groups * 2 * M queries on the targets' device, or None where `config.queries` is 0.
    """
    if config.queries == 0:
        return None
    drawn, targets = zip(*(_drawn(target, config.limit, generator) for target in targets), strict=True)
    most = max(map(len, drawn))
    groups = max(1, config.queries // most) if most else 1
    slots = max(1, most)
    layout = (len(targets), groups, 2, slots)

    device = targets[0].boxes.device
    real = np.arange(slots) < np.array([[len(image)] for image in drawn])  # (B, M)
    target = np.stack([np.pad(image, (0, slots - len(image)), constant_values=-1) for image in drawn])[:, None, None]
    valid = torch.from_numpy(real).to(device, non_blocking=True)[:, None, None].expand(layout)
    negative = torch.arange(2, device=device)[:, None].bool().expand(layout)
    labels = _pad([target.labels for target in targets], slots)[:, None, None].expand(layout)
    boxes = _pad([target.boxes for target in targets], slots)[:, None, None].expand(*layout, 4)

    labels = _flip(labels.flatten(1), num_categories, config.label_noise / 2, generator)
    boxes = _move_edges(boxes.flatten(1, 3), negative.flatten(1), config.box_noise, generator)
    valid = valid.flatten(1)
    return NoisedQueries(
        labels=labels.where(valid, 0),
        boxes=boxes,
        target=np.broadcast_to(np.concatenate([target, np.full_like(target, -1)], 2), layout).reshape(len(targets), -1),
        valid=valid,
        attend=_attend(groups, 2 * slots, num_queries, device),
    )


def _drawn(target: Targets, limit: int, generator: torch.Generator) -> tuple[NDArray[np.int64], Targets]:
    """Which targets of an image are noised, (n,), and these alone."""
    number = len(target.labels)
    if number <= limit:
        return np.arange(number), target
    chosen = torch.randperm(number, generator=generator)[:limit]
    there = chosen.to(target.boxes.device, non_blocking=True)
    return chosen.numpy(), target._replace(labels=target.labels[there], boxes=target.boxes[there])


def _pad(tensors: Sequence[Tensor], length: int) -> Tensor:
    """Stack to (B, length, ...) with zeros at the end."""
    longest = tensors[0].new_zeros(length, *tensors[0].shape[1:])
    return pad_sequence([*tensors, longest], batch_first=True)[:-1]


def _flip(labels: Tensor, num_categories: int, share: float, generator: torch.Generator) -> Tensor:
    """Replace a share of the labels (B, N) by random categories."""
    flipped = torch.rand(labels.shape, generator=generator) < share
    others = torch.randint(num_categories, labels.shape, generator=generator)
    flipped, others = (x.to(labels.device, non_blocking=True) for x in (flipped, others))
    return torch.where(flipped, others, labels)


def _move_edges(boxes: Tensor, negative: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Move every edge of boxes (B, N, 4) inwards or outwards, further where `negative` (B, N)."""
    sign = (torch.randint(2, boxes.shape, generator=generator) * 2 - 1).to(torch.int8)  # few bytes for the device
    share = torch.rand(boxes.shape, generator=generator)
    sign, share = (x.to(boxes.device, non_blocking=True) for x in (sign, share))
    shift = sign * (share + negative[..., None])
    half = boxes[..., 2:].repeat(1, 1, 2) / 2
    moved = xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + scale * shift * half).clamp(0, 1))
    return moved.clamp(min=0)


def _attend(groups: int, length: int, num_queries: int, device: torch.device) -> Tensor:
    """(N + Q, N + Q): a group sees itself and the real queries, which see only one another."""
    group = torch.arange(groups, device=device)[:, None].expand(-1, length).flatten()
    attend = torch.ones(len(group) + num_queries, len(group) + num_queries, dtype=torch.bool, device=device)
    attend[:, : len(group)] = False
    attend[: len(group), : len(group)] = group[:, None] == group
    return attend
