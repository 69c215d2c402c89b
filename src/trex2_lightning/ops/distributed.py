"""Several processes, or one: the only place that asks torch whether a run is distributed.

What goes over ranks is a collective: all ranks call it at the same time.
"""

from __future__ import annotations

import atexit
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")


def num_ranks() -> int:
    """1 where nothing was distributed."""
    return distributed.get_world_size() if _is_distributed() else 1


def own_rank() -> int:
    """0 where nothing was distributed."""
    return distributed.get_rank() if _is_distributed() else 0


def leave_the_other_ranks() -> int:
    """End what is distributed, for good; the rank that this process had."""
    rank = own_rank()
    if _is_distributed():
        _of_hosts.cache_clear()
        distributed.destroy_process_group()
    return rank


def from_every_rank(value: Value) -> list[Value]:
    """The values of all ranks, in their order; any that pickles. They go from host to host, no GPU is waited for."""
    gathered = [value] * num_ranks()
    if _is_distributed():
        distributed.all_gather_object(gathered, value, group=_hosts())
    return gathered


def any_rank(is_so: bool) -> bool:
    """Whether it is so on any of them; as `from_every_rank`, in a third of its time."""
    if num_ranks() == 1:
        return is_so
    found = torch.tensor(int(is_so))
    distributed.all_reduce(found, distributed.ReduceOp.MAX, group=_hosts())
    return bool(found)


def mean_over_ranks(x: Tensor) -> Tensor:
    """Without a gradient."""
    return _summed(x) / num_ranks()


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum, whose gradient is the sum of all ranks' gradients."""
    return _SumOverRanks.apply(x)


class _SumOverRanks(torch.autograd.Function):
    """PyTorch's own is deprecated."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _hosts() -> distributed.ProcessGroup:
    """All ranks, for what is in the host's memory."""
    world = cast(distributed.ProcessGroup, distributed.group.WORLD)
    return world if distributed.get_backend(world) == "gloo" else _of_hosts(world)


@lru_cache(maxsize=1)
def _of_hosts(world: distributed.ProcessGroup) -> distributed.ProcessGroup:  # noqa: ARG001
    """A group of them beside the default one."""
    return cast(distributed.ProcessGroup, distributed.new_group(backend="gloo"))


atexit.register(_of_hosts.cache_clear)  # a group that is kept until Python has ended ends it with an abort


def _summed(x: Tensor) -> Tensor:
    x = x.clone()
    if _is_distributed():
        distributed.all_reduce(x)
    return x


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
