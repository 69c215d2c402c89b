"""What finding costs: parameters, latency and floating-point operations, apart for image, prompt and decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import cycle, islice
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from trex2_lightning.data.sampling.collate import pad
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.structures import Prompts

VOCABULARIES = (10, 100, 500, 2000)  # numbers of names
NUM_NAMES = "100"  # the one of them that is shown where there is room for one
MIN_SECONDS = 0.5  # that a step is repeated for


class Cost(NamedTuple):
    """Of the three steps of the interface for one image; what is cached need not be paid again."""

    image: float  # encode_image
    prompt: float  # encode_prompts
    decode: float  # decode, and the scores of all names


def latency(detector: PromptedDetector, names: Sequence[str], size: int, min_seconds: float = MIN_SECONDS) -> Cost:
    """Median milliseconds for one square image of `size` pixels that is asked for all `names`, on PyTorch's threads."""

    def milliseconds(step: Callable[[], object]) -> float:
        timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
        return timer.blocked_autorange(min_run_time=min_seconds).median * 1000

    return _of_each_step(detector, names, size, milliseconds)


def gflops(detector: PromptedDetector, names: Sequence[str], size: int) -> Cost:
    """Billions of floating-point operations of matrix products, convolutions and attention, and of nothing else."""

    def counted(step: Callable[[], object]) -> float:
        # The fused kernels of attention are not counted; what they fuse is.
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                step()
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        return counter.get_total_flops() / 1e9

    frozen = deepcopy(detector).requires_grad_(False)  # the counter trips over a parameter that a step returns
    return _of_each_step(frozen, names, size, counted)


def num_parameters(module: nn.Module) -> int:
    """Numbers that training may change, and those that are frozen."""
    return sum(parameter.numel() for parameter in module.parameters())


def vocabulary(names: Sequence[str], count: int) -> tuple[str, ...]:
    """That many names, the given ones over and over: what they say changes no cost."""
    return tuple(islice(cycle(names), count))


@torch.no_grad()
def _of_each_step(
    detector: PromptedDetector, names: Sequence[str], size: int, measure: Callable[[Callable[[], object]], float]
) -> Cost:
    detector.eval()
    device = next(detector.parameters()).device
    images = pad([torch.zeros(3, size, size, device=device)], [(size, size)])
    asked = Prompts(tuple(names))
    features, prompts = detector.encode_image(images), detector.encode_prompts(asked)

    def decode() -> object:
        return detector.scores(detector.decode(features, prompts))

    return Cost(
        image=measure(lambda: detector.encode_image(images)),
        prompt=measure(lambda: detector.encode_prompts(asked)),
        decode=measure(decode),
    )
