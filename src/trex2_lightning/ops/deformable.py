"""Multi-scale deformable attention's sampling (Deformable DETR, equation 3), for each device the way that is fastest.

B batch, S image tokens, Q queries, h heads, d = D / h channels per head, L levels, P points per head and level.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from scipy.sparse import csc_array
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from trex2_lightning.errors import reason_of

try:
    from trex2_lightning.ops import fused_sampling as kernel
except ImportError:  # no Triton, as on systems that PyTorch brings none for
    kernel = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

Shapes = Sequence[tuple[int, int]]
QUERIES = 1024  # whose sampling is computed at once where no gradient is taken: it stays in the processor's cache

warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # of all users of the CPU, once a run


def deformable_sampling(
    value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor, levels: Tensor | None = None
) -> Tensor:
    """Weighted sum of bilinear samples around each query's sampling points.

    Args:
        value: (B, S, h, d) image tokens of all levels; half precision too, but all is computed in float32 or float64.
        shapes: L x (height, width), S = sum of height * width.
        locations: (B, Q, h, L, P, 2) as (x, y), 0 and 1 being the borders of the padded map; outside samples 0.
        weights: (B, Q, h, L, P), summing to one over L and P.
        levels: `level_table(shapes, value.device)`, for who calls often: on a GPU it would be made anew.

    Returns:
        (B, Q, D) of the value's type.
    """
    full = torch.promote_types(value.dtype, torch.float32)
    locations, weights = locations.to(full), weights.to(full)
    exporting = _exporting()
    fused = value.device.type == "cuda" and full == torch.float32 and not exporting
    if fused and (torch.compiler.is_compiling() or _kernel_runs(value.device)):
        levels = level_table(shapes, value.device) if levels is None else levels
        return kernel.fused_sampling(value, levels, locations, weights)
    # Of a CPU's time `sample_rows` takes a fourth, with the backward pass less than a third (docs/benchmarks.md).
    sample = sample_rows if value.device.type == "cpu" and not exporting else sample_grid
    return sample(value.to(full), shapes, locations, weights).to(value.dtype)


def level_table(shapes: Shapes, device: torch.device) -> Tensor:
    """(L, 3) int32: height, width and first token of each level."""
    rows, first = [], 0
    for height, width in shapes:
        rows.append((height, width, first))
        first += height * width
    return torch.tensor(rows, dtype=torch.int32).to(device, non_blocking=True)


def _exporting() -> bool:
    """PyTorch 2.6 tells it of TorchScript's exporter alone."""
    return getattr(torch.compiler, "is_exporting", torch.onnx.is_in_onnx_export)()


@cache
def _kernel_runs(device: torch.device) -> bool:
    """Whether the kernel can be had on a GPU; told where it cannot, once."""
    try:
        if kernel is None:
            raise ImportError("Triton is missing: pip install triton")
        value, levels = torch.zeros(1, 1, 1, 16, device=device), level_table([(1, 1)], device)
        kernel.fused_sampling(value, levels, value.new_zeros(1, 1, 1, 1, 1, 2), value.new_zeros(1, 1, 1, 1, 1))
    except torch.OutOfMemoryError:  # it may run later
        raise
    except Exception as error:  # without a C compiler, with an old driver or card it may be anything
        log.warning(
            "the kernel of deformable sampling does not run on %s (%s): grid_sample is taken, in ten times the time",
            device,
            reason_of(error),
        )
        return False
    return True


def sample_grid(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """`deformable_sampling` with a `grid_sample` for each level."""
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B * h, Q, L, P, 2)
    levels = value.split([height * width for height, width in shapes], 1)
    samples = [
        F.grid_sample(
            tokens.permute(0, 2, 3, 1).reshape(batch * heads, channels, *shape),
            grid[:, :, level],
            align_corners=False,
        )  # (B * h, d, Q, P)
        for level, (tokens, shape) in enumerate(zip(levels, shapes, strict=True))
    ]
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    mixed = (torch.cat(samples, -1) * weights).sum(-1)  # (B * h, d, Q)
    return mixed.reshape(batch, heads * channels, queries).transpose(1, 2)


@torch.compiler.disable  # NumPy and sparse matrices have no part in compiled code
def sample_rows(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """`deformable_sampling` as one weighted sum of rows of `value` for each query and head.

    The rows are the four tokens around each point, so the map is read where it lies and no sample is ever stored.
    """
    if torch.is_grad_enabled() and any(given.requires_grad for given in (value, locations, weights)):
        return _sample_rows(value, shapes, locations, weights)
    some = zip(locations.split(QUERIES, 1), weights.split(QUERIES, 1), strict=True)
    return torch.cat([_sample_rows(value, shapes, *part) for part in some], 1)


def _sample_rows(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    batch, tokens, heads, channels = value.shape
    _, queries, _, _, points, _ = locations.shape
    levels = torch.tensor([(width, height) for height, width in shapes], dtype=value.dtype)
    areas = levels.prod(1)
    start = (areas.cumsum(0) - areas).repeat_interleave(points)  # (L * P,), as all three
    width, height = levels.repeat_interleave(points, 0).unbind(1)
    x, y = locations.flatten(3, 4).flatten(0, 2).unbind(-1)  # (B * Q * h, L * P) each
    weights = weights.flatten(3).flatten(0, 2)
    image, head = torch.arange(batch, dtype=torch.int32), torch.arange(heads, dtype=torch.int32)
    first = (image[:, None, None] * (tokens * heads) + head).expand(-1, queries, -1).reshape(-1, 1)
    columns = [(column.int() * heads + first, share) for column, share in _neighbours(x, width)]
    rows = [((start + row * width).int() * heads, weights * share) for row, share in _neighbours(y, height)]
    index = torch.cat([row + column for row, _ in rows for column, _ in columns], 1)  # (B * Q * h, 4 * L * P)
    share = torch.cat([in_row * in_column for _, in_row in rows for _, in_column in columns], 1)
    table = value.reshape(-1, channels)
    return _WeightedRows.apply(table, index, share).view(batch, queries, -1)


def _neighbours(place: Tensor, size: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The two places of an axis of `size` around each point, and their shares in it, 0 beyond the border.

    All of it as floating point numbers, whose gradient with respect to `place` is that of the shares.
    """
    place = (place * size - 0.5).clamp(min=-1).minimum(size)
    low = place.detach().floor().minimum(size - 1).nan_to_num()  # a NaN stays in the shares, but is no place
    high, share = low + 1, place - low
    return [(low.clamp(min=0), (1 - share) * (low >= 0)), (high.minimum(size - 1), share * (high < size))]


class _WeightedRows(torch.autograd.Function):
    """`embedding_bag`: row r of the result is the sum of weights[r, n] * table[index[r, n]].

    That is a sparse matrix times the table, and so are its gradients, which take a fifth of `embedding_bag`'s own time.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, weights)
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor]:
        table, index, weights = ctx.saved_tensors
        grad, shape = grad.contiguous(), (len(index), len(table))
        starts = torch.arange(0, index.numel() + 1, index.shape[1], dtype=index.dtype)
        # An index may come twice in a row, which does not matter here but would not pass for a sparse matrix.
        empty = torch.zeros_like(weights).flatten()
        matrix = torch.sparse_csr_tensor(starts, index.flatten(), empty, shape, check_invariants=False)
        grad_weights = torch.sparse.sampled_addmm(matrix, grad, table.T, beta=0).values().view_as(weights)
        entries = (weights.flatten().numpy(), index.flatten().numpy(), starts.numpy())
        return torch.from_numpy(csc_array(entries, shape[::-1]) @ grad.numpy()), None, grad_weights
