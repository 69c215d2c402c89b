"""Feed-forward parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trex2_lightning.layers.recomputation import call


class MLP(nn.Sequential):
    """Linear layers with ReLU between them, as in DETR's box head: (..., inputs) -> (..., outputs)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int) -> None:
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        parts: list[nn.Module] = []
        for i in range(layers):
            parts += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
        super().__init__(*parts[:-1])


class FeedForward(nn.Module):
    """A transformer's feed-forward block with its residual and post-normalisation: (..., D) -> (..., D).

    On a GPU the hidden activations, an eighth of what a training step of Swin-T would keep, are computed again in the
    backward pass: one product more, of which compiled code is spared, and layers that are computed again as a whole.
    """

    keeps_hidden = False

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        again = x.is_cuda and self.training and not self.keeps_hidden and not torch.compiler.is_compiling()
        return self.norm(x + call(self.net, x, recomputed=again))
