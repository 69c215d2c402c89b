"""What the images of an evaluation are asked with: T-Rex2's protocols (section 4) and their controls.

B images, C categories of the data set, U of them that the images of a batch show, M exemplars, D width, N references
per category.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.aggregation import weighted_average
from trex2_lightning.ops.feature_maps import of_image
from trex2_lightning.ops.padding import stack_exemplars
from trex2_lightning.ops.prompt_tokens import (
    average,
    first_images,
    one_image,
    only,
    renumbered,
    stack,
    together,
)
from trex2_lightning.prompting.controls import swapped_references, wrong_phrases
from trex2_lightning.prompting.protocol_names import EXEMPLAR_KINDS, OWN_EXEMPLARS
from trex2_lightning.structures import (
    Batch,
    ExemplarKind,
    Exemplars,
    FeatureMaps,
    Images,
    Prompts,
    PromptSource,
    PromptTokens,
    Targets,
)

Aggregation = Literal["mean", "weighted", "best"]


class Prompting(ABC):
    """What each image of a batch is asked with."""

    source: PromptSource = "text"  # what its prompts are made from

    def start(self) -> None:  # noqa: B027, most have nothing to forget
        """Begin an evaluation; the weights may have changed since the last one."""

    @abstractmethod
    def __call__(self, detector: PromptedDetector, batch: Batch, features: FeatureMaps) -> PromptTokens:
        """Prompts for the B images of an evaluation batch, whose features these are; of batch size 1 or B."""

    def of_categories(self, scores: Tensor) -> Tensor:
        """Scores (B, Q, n) of what the prompts ask for as those (B, Q, C) of the data set's categories."""
        return scores


def promptings(
    protocols: Collection[str],
    names: tuple[str, ...],
    seed: int,
    references: PromptTokens | None,
    counts: Sequence[int],
    exemplars: Mapping[int, Tensor] | None = None,
    aggregation: Aggregation = "mean",
    *,
    learned: bool = True,
) -> dict[str, Prompting]:
    """The rows of a table of results: one per protocol, `generic_N` for each count of references.

    A control that these names do not allow is left out, and the log says so.

    Args:
        protocols: some of `protocol_names.PROTOCOLS`.
        names: C category names.
        seed: of all draws.
        references: of batch size N, as `ReferenceEncoder` gives them; None: no protocol of `FROM_REFERENCES`.
        counts: how many references make a generic prompt.
        exemplars: boxes by image id, as `Given` takes them; None: not the protocol `exemplars`.
        aggregation: what is made of the references of a generic prompt, as `eval.aggregation`.
        learned: the references' vectors mean something, beside their appearance.
    """
    text = Text()
    rows: dict[str, Prompting] = {
        "text": text,
        **{row: Text(phrases) for row, phrases in wrong_phrases(protocols, names, seed).items()},
        "hinted_text": Hinted(text),
        **{f"interactive_{kind}": Interactive(seed, kind) for kind in EXEMPLAR_KINDS},
        "wrong_pictures": WrongPictures(seed),
    }
    if references is not None:
        for count in counts:
            rows[f"generic_{count}"] = _generic(first_images(references, count), aggregation)
        if "random_references" in protocols and (
            swapped := swapped_references(first_images(references, max(counts)), seed)
        ):
            rows["random_references"] = _generic(swapped, aggregation)
        rows["mixed"] = Mixed(text, average(references), learned)
        if learned:
            rows["mixed_mean"] = Mixed(text, references)
    if exemplars is not None:
        rows[OWN_EXEMPLARS] = Given(exemplars)
    return {row: prompting for row, prompting in rows.items() if row.rstrip("_0123456789") in protocols}


class Text(Prompting):
    """All names at once, encoded once per evaluation.

    Args:
        phrases: asked for in the names' place, in their order; None: the names.
    """

    def __init__(self, phrases: tuple[str, ...] | None = None) -> None:
        self._phrases = phrases
        self._tokens: PromptTokens | None = None

    def start(self) -> None:
        self._tokens = None

    def __call__(self, detector: PromptedDetector, batch: Batch, _features: FeatureMaps) -> PromptTokens:
        if self._tokens is None:
            self._tokens = detector.encode_prompts(Prompts(self._phrases or batch.prompts.phrases))
        return self._tokens


class Hinted(Prompting):
    """Text for the categories that the image has: the hint that interactive prompts get, and so their control."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def start(self) -> None:
        self._text.start()

    def __call__(self, detector: PromptedDetector, batch: Batch, features: FeatureMaps) -> PromptTokens:
        tokens = self._text(detector, batch, features)
        has = torch.stack([torch.isin(tokens.category, target.labels) for target in batch.targets])  # (B, T)
        return only(tokens, has)


class Interactive(Prompting):
    """Visual-I: for each category that the image has one of its boxes, drawn at random, or that box's centre.

    The draw depends on the seed, the image and the category alone.

    Args:
        seed: of the draw.
        kind: what is shown of the box.
    """

    source = "interactive"

    def __init__(self, seed: int, kind: ExemplarKind = "box") -> None:
        self._seed = seed
        self._kind: ExemplarKind = kind

    def __call__(self, detector: PromptedDetector, batch: Batch, features: FeatureMaps) -> PromptTokens:
        shown = [self._shown(target) for target in batch.targets]
        categories, exemplars = stack_exemplars(shown, self._kind, features.tokens.device)
        return renumbered(self._encode(detector, batch, features, exemplars), categories)

    def _encode(
        self, detector: PromptedDetector, _batch: Batch, features: FeatureMaps, exemplars: Exemplars
    ) -> PromptTokens:
        return detector.encode_prompts(Prompts(exemplars=exemplars), features)

    def _shown(self, target: Targets) -> dict[int, Tensor]:
        shown = {}
        for category in target.labels.unique().tolist():
            boxes = target.boxes[target.labels == category]
            chosen = random.Random(f"{self._seed} {target.image_id} {category}").randrange(len(boxes))
            shown[category] = boxes[chosen : chosen + 1]
        return shown


class Given(Prompting):
    """The boxes that the data set gives to an image of one category, as counting benchmarks do (T-Rex2, section 4).

    Args:
        exemplars: image id to boxes (m, 4), cxcywh in [0, 1].
    """

    source = "interactive"

    def __init__(self, exemplars: Mapping[int, Tensor]) -> None:
        self._exemplars = exemplars

    def __call__(self, detector: PromptedDetector, batch: Batch, features: FeatureMaps) -> PromptTokens:
        device = features.tokens.device
        shown = [{0: self._exemplars[target.image_id].to(device)} for target in batch.targets]
        _, exemplars = stack_exemplars(shown, device=device)
        return detector.encode_prompts(Prompts(exemplars=exemplars), features)


class WrongPictures(Interactive):
    """The same boxes, read from the image that this process evaluated before: what they find says nothing of it.

    The first image has a grey one before it.
    """

    _before: FeatureMaps | None = None

    def start(self) -> None:
        self._before = None

    def _encode(
        self, detector: PromptedDetector, batch: Batch, features: FeatureMaps, exemplars: Exemplars
    ) -> PromptTokens:
        if self._before is None:
            first = Images(*(field[:1] for field in batch.images))
            self._before = detector.encode_image(first._replace(pixels=torch.zeros_like(first.pixels)))
        encoded = []
        for image in range(len(batch.targets)):
            own = slice(image, image + 1)
            shown = exemplars._replace(boxes=exemplars.boxes[own], valid=exemplars.valid[own])
            encoded.append(detector.encode_prompts(Prompts(exemplars=shown), self._before))
            self._before = of_image(features, image)
        return stack(encoded)


class Fixed(Prompting):
    """The same prompts for all images, as generic ones are (Visual-G)."""

    source: PromptSource = "generic"

    def __init__(self, tokens: PromptTokens) -> None:
        self._tokens = tokens
        self._prepared: PromptTokens | None = None

    def start(self) -> None:
        self._prepared = None

    def __call__(self, detector: PromptedDetector, batch: Batch, features: FeatureMaps) -> PromptTokens:
        if self._prepared is None:
            tokens = move_data_to_device(self._tokens, features.tokens.device)
            self._prepared = detector.prepared(self._joined(tokens, detector, batch, features))
        return self._prepared

    def _joined(
        self, tokens: PromptTokens, _detector: PromptedDetector, _batch: Batch, _features: FeatureMaps
    ) -> PromptTokens:
        return tokens


class BestReference(Fixed):
    """All N vectors of each category by themselves: a box has the score of the one that suits it best.

    Args:
        references: of batch size N, for C categories.
    """

    def __init__(self, references: PromptTokens) -> None:
        self._count = len(references.embed)
        size = references.embed.shape[1]
        each = [one_image(references, place) for place in range(self._count)]
        numbers = torch.arange(self._count * size).split(size)
        super().__init__(together(*(renumbered(one, own) for one, own in zip(each, numbers, strict=True))))

    def of_categories(self, scores: Tensor) -> Tensor:
        return scores.unflatten(-1, (self._count, -1)).amax(-2)


class Mixed(Fixed):
    """The mean of text and visual vectors, of words their mean; of text alone where a category has no reference image.

    Args:
        text: asks for the names.
        visual: the mean over the references (half and half, section 3.4), or all N of them (plain mean, issue 98).
        learned: the references' vectors mean something; else it is text with their appearance.
    """

    source = "mixed"

    def __init__(self, text: Text, visual: PromptTokens, learned: bool = True) -> None:
        super().__init__(visual)
        self._text = text
        self._learned = learned

    def start(self) -> None:
        super().start()
        self._text.start()

    def _joined(
        self, tokens: PromptTokens, detector: PromptedDetector, batch: Batch, features: FeatureMaps
    ) -> PromptTokens:
        text = self._text(detector, batch, features)
        return average(text, tokens) if self._learned else text._replace(appearance=tokens.appearance)


def _generic(references: PromptTokens, aggregation: Aggregation) -> Prompting:
    if aggregation == "best":
        return BestReference(references)
    return Fixed(average(references) if aggregation == "mean" else weighted_average(references))
