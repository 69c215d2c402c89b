"""What a training step takes as its picture fills with boxes, with and without `loss.denoising.limit`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from trex2_lightning.config import Config, load
from trex2_lightning.data.sampling.collate import Example, collate_train
from trex2_lightning.evaluation.tables import table
from trex2_lightning.losses.denoising import noise_queries
from trex2_lightning.structures import Batch
from trex2_lightning.studies.timing import fastest
from trex2_lightning.training.build import build_module
from trex2_lightning.training.module import DetectionModule

CROWDED = "experiments/small_coco.yaml"
RANDOM = ("model.backbone.weights=", "model.num_queries=900", "train.accelerator=cpu", "train.devices=1")
FEW_TO_MANY = (30, 300, 3000)
THINGS = tuple(f"thing {number}" for number in range(80))


def crowded_steps(boxes: Sequence[int] = FEW_TO_MANY, repeats: int = 2, *settings: str) -> str:
    """Seconds of a step on one picture of so many boxes, with as many times those of the first, as a table.

    Args:
        boxes: in the picture, from few to many.
        repeats: of which the fastest counts.
        settings: further ones of the experiment, whose weights are random.
    """
    config = load(CROWDED, [*RANDOM, *settings])
    module = build_module(config).train()
    bounded = config.loss.denoising.limit
    lines = []
    for limit in (bounded, max(boxes)):
        config.loss.denoising.limit = limit
        steps = [partial(_step, module, config, picture(number, config.data.size)) for number in boxes]
        seconds = fastest(repeats, *steps)
        what = f"`loss.denoising.limit={limit}`" if limit == bounded else "no limit"
        lines.append([what, *(f"{taken:.2f} ({taken / seconds[0]:.1f})" for taken in seconds)])
    return table(["a step takes, s", *(f"{number:,} boxes" for number in boxes)], lines)


def picture(number: int, side: int) -> Batch:
    """A batch of one picture of random pixels with so many small boxes, asked for by `THINGS`."""
    generator = torch.Generator().manual_seed(number)
    centres, sides = (torch.rand(number, 2, generator=generator) for _ in range(2))
    example = Example(
        pixels=torch.randn(3, side, side, generator=generator),
        boxes=torch.cat([0.05 + 0.9 * centres, 0.01 + 0.05 * sides], 1),
        labels=torch.randint(len(THINGS), (number,), generator=generator),
        size=(side, side),
        image_id=1,
    )
    return collate_train([example], THINGS, THINGS, len(THINGS), 1)


def _step(module: DetectionModule, config: Config, batch: Batch) -> None:
    """Loss and gradients; what a trainer adds does not know the boxes."""
    generator = torch.Generator().manual_seed(0)
    features = module.detector.encode_image(batch.images)
    asked = module.training_prompts(module.detector, batch, features, generator)
    queries = module.detector.selection.num_queries
    noised = noise_queries(asked.targets, asked.num_categories, queries, config.loss.denoising, generator)
    output = module.detector.decode(features, asked.prompts, noised)
    terms = module.criterion(output, asked.targets, asked.judged, noised, asked.vectors)
    torch.stack(list(terms.values())).sum().backward()
    module.zero_grad()
