"""The steps of a detector as functions of tensors alone, for runtimes that know neither our structures nor Python.

B images, S image tokens over L levels of height h and width w, C categories, M exemplars of each, R rows of text
tokens, T prompt tokens, Q queries, D width. Between graphs a level's features are a map (B, h, w, D), beside the one
that says which of its places are real (B, h, w): their sizes tell the levels'.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from trex2_lightning.models.appearance import Appearance
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.models.early import EarlyFusionDetector
from trex2_lightning.models.text import TextEncoder
from trex2_lightning.ops.deformable import level_table
from trex2_lightning.ops.padding import unpadded_share
from trex2_lightning.structures import ExemplarKind, Exemplars, FeatureMaps, Images, PromptTokens

Maps = list[Tensor]  # L of them


@contextmanager
def fixed_padding(graph: nn.Module) -> Iterator[None]:
    """Pad TensorFlow's "same" convolutions as they are where sides are multiples of their stride, as all of ours are.

    timm computes it from the sides. Where these are free, the exporter carries that through all layers, for minutes.
    timm's `Conv2dSameExport` has to be chosen before a model is built, and pads all images as it did the first.
    """
    same = [module for module in graph.modules() if isinstance(module, Conv2dSame)]
    for module in same:
        module.forward = partial(_convolved, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in same:
            del module.forward


def _convolved(module: Conv2dSame, x: Tensor) -> Tensor:
    """As `Conv2dSame.forward`."""
    sides: list[int] = []
    for size, stride, dilation in zip(module.kernel_size, module.stride, module.dilation, strict=True):
        both = max((size - 1) * dilation + 1 - stride, 0)
        sides = [both // 2, both - both // 2, *sides]  # F.pad begins with the last axis
    return F.conv2d(F.pad(x, sides), module.weight, module.bias, module.stride, 0, module.dilation, module.groups)


class ImageGraph(nn.Module):
    """Pixels (B, 3, H, W) and which of them are real (B, H, W) -> features, and which of their places are real.

    The neck's features follow where exemplars are read from these, and they are others.
    """

    def __init__(self, detector: PromptedDetector) -> None:
        super().__init__()
        self.detector = detector
        self.neck_too = detector.visual_encoder.source == "neck" and not isinstance(detector, EarlyFusionDetector)

    def forward(self, pixels: Tensor, valid: Tensor) -> tuple[Maps, ...]:
        features = _encoded(self.detector, pixels, valid)
        sizes = [height * width for height, width in features.shapes]
        return tuple(
            [level.unflatten(1, shape) for level, shape in zip(tokens.split(sizes, 1), features.shapes, strict=True)]
            for tokens in (features.tokens, features.valid, *([features.neck] if self.neck_too else []))
        )


class ExemplarGraph(nn.Module):
    """Exemplars (B, C, M, 4), which of them are real (B, C, M), and maps of what they lie on -> vectors (B, C, D)."""

    def __init__(self, detector: PromptedDetector, kind: ExemplarKind) -> None:
        super().__init__()
        self.encoder = detector.visual_encoder
        self.kind = kind

    def forward(self, exemplars: Tensor, shown: Tensor, features: Maps, valid: Maps) -> Tensor:
        return self.encoder(Exemplars(exemplars, shown, self.kind), _joined(features, valid))


class TextGraph(nn.Module):
    """Token ids (R, N) and their numbers (R,) -> as `TextEncoder.encode`."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.encoder.encode(tokens, lengths)


class DecodingGraph(nn.Module):
    """Prompt tokens, the same for every image, and maps -> logits (B, Q, T), boxes (B, Q, 4), any presence (B, T)."""

    def __init__(self, detector: PromptedDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(
        self, embed: Tensor, category: Tensor, attend: Tensor, position: Tensor, features: Maps, valid: Maps
    ) -> tuple[Tensor, ...]:
        return _decoded(self.detector, _joined(features, valid), embed, category, attend, position)


class DetectionGraph(nn.Module):
    """Pixels and prompt tokens -> as `DecodingGraph`; all of early fusion, in which prompts come early."""

    def __init__(self, detector: PromptedDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(
        self, embed: Tensor, category: Tensor, attend: Tensor, position: Tensor, pixels: Tensor, valid: Tensor
    ) -> tuple[Tensor, ...]:
        features = _encoded(self.detector, pixels, valid)
        return _decoded(self.detector, features, embed, category, attend, position)


class AppearanceGraph(nn.Module):
    """Pixels and which of them are real -> maps (B, channels, h, w) of the network that compares appearance."""

    def __init__(self, appearance: Appearance) -> None:
        super().__init__()
        self.appearance = appearance

    def forward(self, pixels: Tensor, valid: Tensor) -> Maps:
        return [*self.appearance(Images(pixels, valid, valid)).maps]


def _encoded(detector: PromptedDetector, pixels: Tensor, valid: Tensor) -> FeatureMaps:
    """Without appearance, which has a graph of its own."""
    appearance, detector.appearance = detector.appearance, None
    try:
        return detector.encode_image(Images(pixels, valid, valid))
    finally:
        detector.appearance = appearance


def _joined(features: Maps, valid: Maps) -> FeatureMaps:
    """What a detector reads behind its encoder, where positions are in the features already."""
    shapes = tuple((level.shape[1], level.shape[2]) for level in valid)
    tokens = torch.cat([level.flatten(1, 2) for level in features], 1)
    return FeatureMaps(
        tokens=tokens,
        pos=tokens,
        valid=torch.cat([level.flatten(1) for level in valid], 1),
        shapes=shapes,
        levels=level_table(shapes, tokens.device),
        valid_ratios=torch.stack([unpadded_share(level) for level in valid], 1),
        neck=tokens,
    )


def _decoded(
    detector: PromptedDetector,
    features: FeatureMaps,
    embed: Tensor,
    category: Tensor,
    attend: Tensor,
    position: Tensor,
) -> tuple[Tensor, ...]:
    valid = torch.ones_like(embed[..., 0], dtype=torch.bool)
    output = detector.decode(features, PromptTokens(embed, valid, category, attend, position))
    found = (output.queries.logits[-1], output.queries.boxes[-1])
    return found if output.presence is None else (*found, output.presence)
