"""Activation checkpointing: a layer's inputs are kept, what lies between is computed again (arXiv 1604.06174)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def call(layer: nn.Module, *inputs: Any, recomputed: bool) -> Any:
    """`layer(*inputs)`; where it is to be `recomputed` and a gradient is wanted, its backward pass runs it once more.

    Random numbers and autocast are those of the first time, so neither values nor gradients change. It is not for
    layers that change as they run, such as a BatchNorm in training mode.
    """
    if recomputed and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
