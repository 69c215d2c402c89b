"""A detector whose vectors say what it was shown, and images to ask."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.prompting.protocols import Prompting
from trex2_lightning.structures import Batch, FeatureMaps, Images, Prompts, PromptTokens, Targets

NAMES = ("cat", "dog", "cow", "hen")


class Glass:
    """A detector whose visual vectors are (mean box of the exemplars, how many, grey value of the picture)."""

    decoder = SimpleNamespace(width=6)
    appearance = None

    def encode_image(self, images: Images) -> FeatureMaps:
        batch = len(images.pixels)
        tokens = images.pixels.mean((1, 2, 3))[:, None, None].expand(batch, 4, 6)
        valid, ratios = torch.ones(batch, 4, dtype=torch.bool), torch.ones(batch, 1, 2)
        return FeatureMaps(tokens, tokens, valid, ((2, 2),), torch.tensor([[2, 2, 0]]), ratios, tokens)

    def encode_prompts(self, prompts: Prompts, reference: FeatureMaps | None = None) -> PromptTokens:
        shown = prompts.exemplars
        if shown is None:
            return from_vectors(torch.tensor([[[float(len(name))] * 6 for name in prompts.phrases]]))
        assert reference is not None
        boxes = shown.boxes[..., :2] if shown.kind == "point" else shown.boxes
        boxes = torch.nn.functional.pad(boxes, (0, 4 - boxes.shape[-1]))
        count = shown.valid.sum(-1, keepdim=True)
        mean = (boxes * shown.valid[..., None]).sum(2) / count.clamp(min=1)
        grey = reference.tokens[:, None, :1, 0].expand_as(count)
        return from_vectors(torch.cat([mean, count, grey], -1), shown.valid.any(-1))

    def prepared(self, prompts: PromptTokens) -> PromptTokens:
        return prompts


def image(image_id: int, labels: Sequence[int], grey: float = 0.5) -> tuple[Targets, float]:
    boxes = torch.rand(len(labels), 4, generator=torch.Generator().manual_seed(image_id))
    return Targets(torch.tensor(labels, dtype=torch.int64), boxes, image_id), grey


def batch_of(*images: tuple[Targets, float]) -> Batch:
    targets, greys = zip(*images, strict=True)
    pixels = torch.tensor(greys)[:, None, None, None].expand(-1, 3, 8, 8)
    valid = torch.ones(len(targets), 8, 8, dtype=torch.bool)
    return Batch(Images(pixels, valid, torch.full((len(targets), 2), 8)), Prompts(NAMES), targets)


def ask(prompting: Prompting, *batches: Batch) -> list[dict[int, list[float]]]:
    """For each image category to vector, of the valid ones."""
    detector: Any = Glass()
    prompting.start()
    asked = []
    for batch in batches:
        prompts = prompting(detector, batch, detector.encode_image(batch.images))
        count = len(batch.targets)
        embed, valid = prompts.embed.expand(count, -1, -1), prompts.valid.expand(count, -1)
        asked += [
            dict(zip(prompts.category[some].tolist(), vectors[some].tolist(), strict=True))
            for vectors, some in zip(embed, valid, strict=True)
        ]
    return asked


IMAGES = (image(7, [2, 0, 2, 2], 0.1), image(8, []), image(9, [1, 1, 0], 0.3), image(4, [2], 0.4))
