"""Reference images to the vectors of generic prompts (Visual-G; T-Rex2, section 4).

B images, C categories of the data set, U of them that the images of a batch show, D width, A channels of appearance,
N references per category.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from trex2_lightning.data.sampling.references import References
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.distributed import sum_over_ranks
from trex2_lightning.ops.padding import stack_exemplars
from trex2_lightning.ops.prompt_tokens import average, category_means, from_vectors
from trex2_lightning.prompting.protocols import Prompting
from trex2_lightning.structures import Batch, ExemplarAppearance, FeatureMaps, Prompts, PromptTokens


class ReferenceEncoder(L.LightningModule):
    """Makes the vectors of generic prompts in `trainer.predict`; every image is encoded once, for all its categories.

    An image's vector of a category is that of all its boxes of it (T-Rex2, section 4), and its appearance is their
    mean, where the detector compares it. Afterwards `prompts` is of batch size N: of each category the vectors of the
    images drawn for it, in the order of the draw.

    Args:
        detector: encodes.
        references: the images and what they were drawn for.
        num_references: N.
        num_categories: C.
    """

    total: Tensor
    seen: Tensor
    count: Tensor

    def __init__(
        self, detector: PromptedDetector, references: References, num_references: int, num_categories: int
    ) -> None:
        super().__init__()
        self.detector = detector
        self._references = references
        self.register_buffer("total", torch.zeros(num_references, num_categories, detector.decoder.width))
        channels = 0 if detector.appearance is None else detector.appearance.channels
        self.register_buffer("seen", torch.zeros(num_references, num_categories, channels))
        self.register_buffer("count", torch.zeros(num_references, num_categories))

    @property
    def prompts(self) -> PromptTokens:
        # A rank that lacks an image encodes another one's a second time: the mean leaves a vector as it is.
        count, valid = self.count.clamp(min=1)[..., None], self.count > 0
        prompts = from_vectors(self.total / count, valid)
        if not self.seen.shape[-1]:
            return prompts
        return prompts._replace(appearance=ExemplarAppearance(self.seen / count, valid, prompts.category))

    def predict_step(self, batch: Batch, *_: Any) -> Tensor:
        """Vectors (B, U, D) of the U categories that the batch has references of."""
        drawn = [self._references[target.image_id] for target in batch.targets]
        shown = [
            {category: target.boxes[target.labels == category] for category in places}
            for target, places in zip(batch.targets, drawn, strict=True)
        ]
        features = self.detector.encode_image(batch.images)
        categories, exemplars = stack_exemplars(shown, device=features.tokens.device)
        prompts = self.detector.encode_prompts(Prompts(exemplars=exemplars), features)
        vectors = prompts.embed.float()  # (B, U, D)
        appearance = None if prompts.appearance is None else category_means(prompts.appearance, len(categories))
        for image, places in enumerate(drawn):
            for column, category in enumerate(categories.tolist()):
                if category in places:
                    self.total[places[category], category] += vectors[image, column]
                    if appearance is not None:
                        self.seen[places[category], category] += appearance[image, column]
                    self.count[places[category], category] += 1
        return vectors

    def on_predict_epoch_end(self) -> None:
        for name in ("total", "seen", "count"):
            setattr(self, name, sum_over_ranks(getattr(self, name)))


class GenericAnew(Prompting):
    """Visual-G while the weights change: every evaluation encodes the references, each rank a part of them.

    Args:
        references: as of `ReferenceEncoder`.
        batches: gives a rank its batches of the reference images.
        num_references: N, whose mean is taken.
        num_categories: C.
    """

    source = "generic"

    def __init__(
        self,
        references: References,
        batches: Callable[[], Iterable[Batch]],
        num_references: int,
        num_categories: int,
    ) -> None:
        self._references = references
        self._batches = batches
        self._counts = num_references, num_categories
        self._prepared: PromptTokens | None = None

    def __deepcopy__(self, _memo: dict[int, object]) -> GenericAnew:
        """The same: averaging copies a module with what it is asked with, and the data are behind this."""
        return self

    def start(self) -> None:
        self._prepared = None

    def __call__(self, detector: PromptedDetector, _batch: Batch, features: FeatureMaps) -> PromptTokens:
        if self._prepared is None:
            device = features.tokens.device
            encoder = ReferenceEncoder(detector, self._references, *self._counts).to(device)
            for shown in self._batches():
                encoder.predict_step(move_data_to_device(shown, device))
            encoder.on_predict_epoch_end()
            self._prepared = detector.prepared(average(encoder.prompts))
        return self._prepared
