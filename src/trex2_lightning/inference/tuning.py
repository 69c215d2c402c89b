"""Prompt tuning: gradient descent on nothing but the category vectors, on a few annotated images.

T-Rex issue 74: what a detector finds with optimised vectors exceeds what it finds with those of exemplars.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.errors import InputError
from trex2_lightning.inference.inputs import as_names
from trex2_lightning.inference.predictor import Predictor, Reference
from trex2_lightning.ops.boxes import xyxy_to_cxcywh
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.prompting.prompt_set import PromptSet, from_one_source
from trex2_lightning.structures import Box, FeatureMaps, Targets


class Tuned(NamedTuple):
    """Tuned vectors and the mean loss on their own images; only other images tell what the tuning is worth."""

    prompts: PromptSet
    loss_before: float
    loss_after: float


class TuningImage(NamedTuple):
    """An encoded image and what is known of it."""

    features: FeatureMaps
    targets: Targets
    judged: Tensor | None  # (1, C) bool, as in `Prompts`


def tune(
    predictor: Predictor,
    records: Records,
    start: PromptSet,
    steps: int = 100,
    lr: float = 0.03,
    told: Callable[[int, int], None] = lambda *_: None,
) -> Tuned:
    """Minimise the detection loss on all images of `records` by Adam over the vectors; the detector stays as it is.

    Images are encoded once, and their features are kept in memory: tens of images, not thousands. Those without an
    object of the categories serve as negatives.

    Args:
        predictor: the detector.
        records: other categories are background; what an image does not judge has no negatives there.
        start: its names are among those of `records`; from `predictor.text` or, with `exemplars`, `predictor.generic`.
        steps: of Adam, each over all images.
        lr: learning rate; vectors' elements are of the order of 1.
        told: given the number of steps that are done and of all, at the start and after each.

    Raises:
        InputError: a name that `records` lacks, categories without a box in them, or an unreadable image.
    """
    labels = _labels(records, start.names)
    examples = [_example(predictor, image, labels) for image in records.images]
    vectors = start.vectors.to(predictor.module.device, copy=True).requires_grad_()
    optimizer = torch.optim.Adam([vectors], lr)
    before = _mean_loss(predictor, examples, vectors)
    told(0, steps)
    for step in range(steps):
        optimizer.zero_grad()
        _mean_loss(predictor, examples, vectors).backward()
        optimizer.step()
        told(step + 1, steps)
    with torch.no_grad():
        after = _mean_loss(predictor, examples, vectors)
    # Without the exemplars' appearance, by which the loss found nothing: what was tuned would hardly be asked.
    tuned = from_one_source(start._replace(vectors=vectors.detach().cpu(), appearance={}), "tuned")
    return Tuned(tuned, before.item(), after.item())


def exemplars(records: Records, names: Sequence[str]) -> list[Reference]:
    """All boxes of the categories as exemplars, for `Predictor.generic`.

    Raises:
        InputError: a name that `records` lacks, a category without a box in them, or an unreadable image.
    """
    names = as_names(names)
    labels = _labels(records, names)
    references: list[Reference] = []
    for image in records.images:
        real = {n: image.boxes[(image.labels == label) & ~image.crowd] for n, label in zip(names, labels, strict=True)}
        marked = {name: [Box(*box) for box in boxes.tolist()] for name, boxes in real.items() if len(boxes)}
        if marked:
            references.append((read_image(image.path, (image.height, image.width)), marked))
    return references


def _labels(records: Records, names: Sequence[str]) -> list[int]:
    """Index of each name in `records.names`."""
    for name in names:
        if name not in records.names:
            raise InputError(f"{records.annotations} has no category '{name}', only {', '.join(records.names)}")
        label = records.names.index(name)
        if not any(((image.labels == label) & ~image.crowd).any() for image in records.images):
            raise InputError(f"{records.annotations} has no box of '{name}': annotate some, or leave it out")
    return [records.names.index(name) for name in names]


def _example(predictor: Predictor, image: ImageRecord, labels: Sequence[int]) -> TuningImage:
    """Features of an image, and the boxes of the categories, numbered in the order of `labels`."""
    encoded = predictor.encode(read_image(image.path, (image.height, image.width)))
    wanted = image.labels == torch.tensor(labels)[:, None]  # (C, n)
    kept = wanted.any(0) & ~image.crowd
    size = torch.tensor([image.width, image.height, image.width, image.height])
    boxes = xyxy_to_cxcywh(image.boxes[kept] / size)
    device = predictor.module.device
    targets = Targets(wanted[:, kept].int().argmax(0).to(device), boxes.to(device), image.id)
    judged = None if image.judged is None else torch.isin(torch.tensor(labels), image.judged)[None].to(device)
    return TuningImage(encoded.features, targets, judged)


def _mean_loss(predictor: Predictor, examples: Sequence[TuningImage], vectors: Tensor) -> Tensor:
    """Mean over the images of the training loss, without denoising."""
    module, prompts = predictor.module, from_vectors(vectors[None])
    with predictor.autocast():
        outputs = [module.detector.decode(example.features, prompts) for example in examples]
        losses = [
            module.criterion(output, [example.targets], judged=example.judged)
            for output, example in zip(outputs, examples, strict=True)
        ]
    return torch.stack([term for terms in losses for term in terms.values()]).sum() / len(examples)
