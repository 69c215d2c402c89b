"""Whether a GPU finds the same: the fused sampling as `grid_sample`, and (word, early) as `transformers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trex2_lightning.ops.deformable import deformable_sampling, sample_grid
from trex2_lightning.structures import Prompts
from trex2_lightning.studies.detector_speed import outputs_differ
from trex2_lightning.studies.gpu_latency import ask
from trex2_lightning.studies.gpu_models import OURS, PEER, Bench
from trex2_lightning.studies.gpu_page import Section, Task
from trex2_lightning.studies.gpu_sampling import sampling_inputs
from trex2_lightning.studies.gpu_timing import Taken
from trex2_lightning.studies.timing import difference, level_shapes

SAME_TITLE = "The same numbers"


def same_section(bench: Bench) -> Section:
    """Differences, in float32 without TF32."""
    tasks = [
        Task(("sampled values",), lambda: _difference(lambda: _sampled(bench)[0]), _tell),
        Task(("their gradients, relative to the largest",), lambda: _difference(lambda: _sampled(bench)[1]), _tell),
    ]
    if bench.has_peer:
        names = bench.work.setting.few
        what = f"boxes and logits of {OURS['early']}, {names} names"
        tasks.append(Task((what,), lambda: _difference(lambda: _detected(bench)), _tell))
    text = f"The largest difference from `grid_sample` for each level and from {PEER}, one image, float32 without TF32."
    return Section(SAME_TITLE, text, ("what", "largest difference"), tasks)


def _difference(find: Callable[[], float]) -> Taken:
    with _exact():
        return Taken(0.0, parts={"difference": find()})


def _tell(taken: Taken) -> list[str]:
    return [f"{taken.parts['difference']:.1e}"]


def _sampled(bench: Bench) -> tuple[float, float]:
    shapes = level_shapes(bench.work.setting)
    inputs = value, locations, weights = sampling_inputs(bench.device, 1, shapes, torch.float32)
    outputs: list[Tensor] = []
    gradients: list[tuple[Tensor, ...]] = []
    for sample in (sample_grid, deformable_sampling):
        output = sample(value, shapes, locations, weights)
        outputs.append(output.detach())
        gradients.append(torch.autograd.grad(output.sin().sum(), inputs))
    relative = max(difference(*pair) / float(pair[0].abs().max()) for pair in zip(*gradients, strict=True))
    return difference(*outputs), relative


@torch.no_grad()
def _detected(bench: Bench) -> float:
    reference, detector, images = bench.reference(), bench.detector("early"), bench.images(1)
    names = bench.names(bench.work.setting.few)
    [sentence] = bench.chunks(names)
    ours = detector.decode(detector.encode_image(images), detector.encode_prompts(Prompts(names)))
    return outputs_differ(ask(reference, images.pixels, sentence), ours, sentence.shape[1])


@contextmanager
def _exact() -> Iterator[None]:
    """No product is rounded to TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
