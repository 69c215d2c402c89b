"""What comparing appearance costs an image, beside parts of the same detector."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from trex2_lightning.config import AppearanceConfig
from trex2_lightning.models.appearance import Appearance
from trex2_lightning.models.hub.settings import model_config
from trex2_lightning.ops.prompt_tokens import from_vectors
from trex2_lightning.prompting.finding import find_objects
from trex2_lightning.structures import AppearanceMaps, ExemplarAppearance, Images
from trex2_lightning.studies.detector_speed import random_detector
from trex2_lightning.studies.timing import Row, Setting, difference, fastest, ratio

EXEMPLARS = 16  # of a category
BOXES = {100: ">= 1", 300: ""}  # of an image, as COCO's protocol and LVIS's ask for, and the bar


@torch.no_grad()
def appearance(folder: Path, setting: Setting) -> list[Row]:
    """The frozen pass beside the backbone, and comparing boxes with exemplars beside a layer of the decoder.

    Args:
        folder: with the settings and weights of `detectors`.
        setting: sizes.
    """
    detector = random_detector(folder, "late", "phrase", "scaled")
    network = detector.appearance = Appearance(AppearanceConfig("backbone"), model_config(str(folder)).backbone)
    torch.manual_seed(0)
    images = Images(
        torch.randn(1, 3, setting.height, setting.width),
        torch.ones(1, setting.height, setting.width, dtype=torch.bool),
        torch.tensor([[setting.height, setting.width]]),
    )
    features = detector.encode_image(images)
    assert features.appearance is not None
    shown = random_exemplars(setting.many, network.channels)
    learned = from_vectors(torch.randn(1, setting.many, detector.decoder.width))
    [once] = fastest(1, partial(network.whitened, shown))
    prompts = detector.prepared(learned._replace(appearance=shown))
    assert prompts.appearance is not None

    backbone, frozen = fastest(setting.repeats, lambda: detector.backbone(images.pixels), lambda: network(images))
    bare, whole = fastest(
        setting.repeats,
        lambda: detector.scores(detector.decode(features, learned)),
        lambda: find_objects(detector, features, prompts, "generic"),
    )
    rows = [
        Row(f"frozen pass, {setting.height} x {setting.width}, beside the backbone", backbone, frozen, ""),
        Row("finding boxes, encoded image, beside the same without appearance", bare, whole, ""),
    ]
    content, position = torch.randn(2, 1, detector.selection.num_queries, detector.decoder.width)
    reference = torch.rand(1, content.shape[1], len(features.shapes), 4) / 2
    layer = partial(detector.decoder.layers[0], content, position, reference, features, None, None, None)
    for number, bar in BOXES.items():
        boxes = torch.rand(1, number, 4) / 2
        compare = partial(compared, network, features.appearance, boxes, prompts.appearance, setting.many)
        decoding, comparing = fastest(setting.repeats, layer, compare)
        rows.append(Row(f"comparing {number} boxes, beside a decoder layer", decoding, comparing, "", bar))
    rows = [row._replace(figure=ratio(row.peer, row.ours)) for row in rows if row.peer and row.ours]
    largest = difference(compare(), one_by_one(network, features.appearance, boxes, shown))
    return [
        *rows,
        Row("whitening the exemplars, once for all images", None, once, ""),
        Row("largest difference from comparing each exemplar by itself", None, None, f"{largest:.1e}", "<= 1e-5"),
    ]


def random_exemplars(num_categories: int, channels: int) -> ExemplarAppearance:
    """`EXEMPLARS` of each category, in order."""
    category = torch.arange(num_categories).repeat_interleave(EXEMPLARS)
    vectors = F.normalize(torch.randn(1, len(category), channels), dim=-1)
    return ExemplarAppearance(vectors, torch.ones(1, len(category), dtype=torch.bool), category)


def compared(
    network: Appearance, maps: AppearanceMaps, boxes: Tensor, shown: ExemplarAppearance, num_categories: int
) -> Tensor:
    """All that is done for an image, from boxes to similarities (1, N, C)."""
    return network.similarity(network.vectors(maps, boxes), shown, num_categories)


def one_by_one(network: Appearance, maps: AppearanceMaps, boxes: Tensor, shown: ExemplarAppearance) -> Tensor:
    """The same by the formula as it is written, from all cosines at once."""
    seen, known = (
        F.normalize((vectors - network.mean) @ network.transform, dim=-1)
        for vectors in (network.vectors(maps, boxes), shown.vectors)
    )
    cosines = (seen @ known.transpose(1, 2)).unflatten(2, (-1, EXEMPLARS))
    return network.temperature * (cosines / network.temperature).exp().mean(-1).log()
