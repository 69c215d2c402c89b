"""Multi-scale deformable sampling as one Triton kernel each way, for CUDA (Deformable DETR, equation 3).

A program reads, for a block of queries and one head, the four tokens around every point and sums them, so no sample is
ever stored. Values may be float32, bfloat16 or float16; places, weights and all sums are float32. Gradients of values
are added up atomically in float32, as older cards cannot in bfloat16: their sums differ in the last bits from run to
run. The plain form, and the test of this one, is `ops.deformable.sample_grid`.

B batch, S image tokens, Q queries, h heads, d channels per head, L levels, P points per head and level.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

QUERIES_OF_A_PROGRAM = 32
WARPS = 4
CHANGING = ("S", "Q")  # change with the images; a kernel that is made for each would be compiled amid training


@torch.library.custom_op("trex2_lightning::deformable_sampling", mutates_args=())
def fused_sampling(value: Tensor, levels: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """`deformable_sampling` in one kernel; differentiable once.

    Args:
        value: (B, S, h, d).
        levels: (L, 3) int32, height, width and first token of each: a tensor, as for numbers `torch.compile` would
            compile anew with every size of images.
        locations: (B, Q, h, L, P, 2) float32.
        weights: (B, Q, h, L, P) float32.

    Returns:
        (B, Q, h * d) of the value's type.
    """
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    out = _empty_like_queries(value, locations)
    grid, sizes = _launch(value, locations)
    with torch.cuda.device_of(value):  # Triton launches on the current one
        _sample[grid](value, locations, weights, levels, out, **sizes, num_warps=WARPS)
    return out


@torch.library.custom_op("trex2_lightning::deformable_sampling_backward", mutates_args=())
def _fused_gradients(
    grad: Tensor, value: Tensor, levels: Tensor, locations: Tensor, weights: Tensor, of_all: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of value, locations and weights; the first is empty unless `of_all`: features that are not trained need none."""
    grad, value = grad.contiguous(), value.contiguous()
    locations, weights = locations.contiguous(), weights.contiguous()
    of_value = torch.zeros_like(value, dtype=torch.float32) if of_all else value.new_empty(0, dtype=torch.float32)
    of_locations, of_weights = torch.empty_like(locations), torch.empty_like(weights)
    grid, sizes = _launch(value, locations)
    gradients = (of_value, of_locations, of_weights)
    with torch.cuda.device_of(value):
        _differentiate[grid](
            grad, value, locations, weights, levels, *gradients, **sizes, OF_VALUE=of_all, num_warps=WARPS
        )
    return of_value.to(value.dtype), of_locations, of_weights


@fused_sampling.register_fake
def _(value: Tensor, _levels: Tensor, locations: Tensor, _weights: Tensor) -> Tensor:
    return _empty_like_queries(value, locations)


@_fused_gradients.register_fake
def _(
    _grad: Tensor, value: Tensor, _levels: Tensor, locations: Tensor, weights: Tensor, of_all: bool
) -> tuple[Tensor, Tensor, Tensor]:
    of_locations, of_weights = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (locations, weights)
    )
    return value.new_empty(value.shape if of_all else 0), of_locations, of_weights


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor]:
    of_all = ctx.needs_input_grad[0]
    of_value, of_locations, of_weights = _fused_gradients(grad, *ctx.saved_tensors, of_all)
    return of_value if of_all else None, None, of_locations, of_weights


fused_sampling.register_autograd(_backward, setup_context=_save)


def _empty_like_queries(value: Tensor, locations: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape  # not `len`, which `torch.compile` takes for a number that stays
    return value.new_empty(batch, locations.shape[1], heads * channels)


def _launch(value: Tensor, locations: Tensor) -> tuple[tuple[int, int, int], dict[str, int]]:
    """A program for each block of queries, head and image; and the sizes that a kernel is compiled for, but S and Q."""
    batch, tokens, heads, channels = value.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    sizes = {"S": tokens, "Q": queries, "H": heads, "D": channels, "L": levels, "P": points}
    width = triton.next_power_of_2(channels)
    return (triton.cdiv(queries, QUERIES_OF_A_PROGRAM), heads, batch), {
        **sizes,
        "WIDTH": width,
        "BLOCK": QUERIES_OF_A_PROGRAM,
    }


@triton.jit
def _axis(place, size):  # type: ignore[no-untyped-def]
    """The token before each place of an axis, the share of the one behind it, and whether either may be on the axis."""
    within = (place > -1) & (place < size)  # not where the place is no number
    low = tl.floor(tl.where(within, place, 0.0))
    return low.to(tl.int32), tl.where(within, place - low, 0.0), within


@triton.jit
def _point(locations, weights, item, live, levels, level):  # type: ignore[no-untyped-def]
    """Of each query's point the axes' `_axis`, its weight, and NaN where its place is no number, else 0; of its level
    width, height and first token."""
    height = tl.load(levels + 3 * level)
    width = tl.load(levels + 3 * level + 1)
    start = tl.load(levels + 3 * level + 2)
    x = tl.load(locations + 2 * item, mask=live, other=-2.0) * width - 0.5
    y = tl.load(locations + 2 * item + 1, mask=live, other=-2.0) * height - 0.5
    left, right_share, in_x = _axis(x, width)
    top, bottom_share, in_y = _axis(y, height)
    weight = tl.load(weights + item, mask=live, other=0.0)
    spoiled = tl.where((x == x) & (y == y), 0.0, float("nan"))
    return left, right_share, top, bottom_share, in_x & in_y, weight, spoiled, width, height, start


@triton.jit
def _corner(left, right_share, top, bottom_share, within, width, height, RIGHT: tl.constexpr, BELOW: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """One of the four tokens around each point: its place, its shares in x and y, and whether it is there."""
    column, line = left + RIGHT, top + BELOW
    share_x = right_share if RIGHT else 1 - right_share
    share_y = bottom_share if BELOW else 1 - bottom_share
    there = within & (column >= 0) & (column < width) & (line >= 0) & (line < height)
    return line * width + column, share_x, share_y, there


@triton.jit(do_not_specialize=CHANGING)
def _sample(  # type: ignore[no-untyped-def]
    value, locations, weights, levels, out, S, Q,  # noqa: N803
    H: tl.constexpr, D: tl.constexpr, L: tl.constexpr, P: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    query = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    channel = tl.arange(0, WIDTH)[None]
    row = (image * Q + query) * H + head
    total = tl.zeros((BLOCK, WIDTH), tl.float32)
    for level in range(L):
        for point in range(P):
            item = row * (L * P) + level * P + point
            left, right, top, bottom, within, weight, spoiled, width, height, start = _point(
                locations, weights, item, query < Q, levels, level
            )
            for corner in tl.static_range(4):
                place, share_x, share_y, there = _corner(
                    left, right, top, bottom, within, width, height, corner % 2, corner // 2
                )
                token = (((image * S + start + place) * H + head) * D)[:, None] + channel
                read = tl.load(value + token, mask=there[:, None] & (channel < D), other=0.0)
                total += read.to(tl.float32) * (weight * share_x * share_y)[:, None]
            total += spoiled[:, None]  # its own query, and no other
    mask = (query < Q)[:, None] & (channel < D)
    tl.store(out + (row * D)[:, None] + channel, total.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=CHANGING)
def _differentiate(  # type: ignore[no-untyped-def]
    grad, value, locations, weights, levels, of_value, of_locations, of_weights, S, Q,  # noqa: N803
    H: tl.constexpr, D: tl.constexpr, L: tl.constexpr, P: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
    OF_VALUE: tl.constexpr,  # noqa: N803
):  # fmt: skip
    query = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    live, channel = query < Q, tl.arange(0, WIDTH)[None]
    row = (image * Q + query) * H + head
    own = live[:, None] & (channel < D)
    change = tl.load(grad + (row * D)[:, None] + channel, mask=own, other=0.0).to(tl.float32)
    for level in range(L):
        for point in range(P):
            item = row * (L * P) + level * P + point
            left, right, top, bottom, within, weight, spoiled, width, height, start = _point(
                locations, weights, item, live, levels, level
            )
            by_weight = tl.zeros((BLOCK,), tl.float32)
            by_x = tl.zeros((BLOCK,), tl.float32)
            by_y = tl.zeros((BLOCK,), tl.float32)
            for corner in tl.static_range(4):
                place, share_x, share_y, there = _corner(
                    left, right, top, bottom, within, width, height, corner % 2, corner // 2
                )
                token = (((image * S + start + place) * H + head) * D)[:, None] + channel
                mask = there[:, None] & (channel < D)
                likeness = tl.sum(change * tl.load(value + token, mask=mask, other=0.0).to(tl.float32), 1)
                by_weight += likeness * share_x * share_y
                by_x += likeness * (share_y if corner % 2 else -share_y)
                by_y += likeness * (share_x if corner // 2 else -share_x)
                if OF_VALUE:
                    moved = change * (weight * share_x * share_y)[:, None]
                    tl.atomic_add(of_value + token, moved, mask=mask, sem="relaxed")
            tl.store(of_weights + item, by_weight + spoiled, mask=live)
            tl.store(of_locations + 2 * item, by_x * weight * width + spoiled, mask=live)
            tl.store(of_locations + 2 * item + 1, by_y * weight * height + spoiled, mask=live)
