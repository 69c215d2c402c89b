"""Feed-forward parts."""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with ReLU between them, as in DETR's box head: (..., inputs) -> (..., outputs)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int) -> None:
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        parts: list[nn.Module] = []
        for i in range(layers):
            parts += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
        super().__init__(*parts[:-1])


class FeedForward(nn.Module):
    """A transformer's feed-forward block with its residual and post-normalisation: (..., D) -> (..., D)."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.net(x))
