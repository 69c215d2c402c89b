"""The one interface of all fusions, and the parts that they share.

B images, C categories, T prompt tokens, S image tokens, Q queries, N noised queries, K decoder layers, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Self

import torch
from torch import Tensor, nn

from trex2_lightning.errors import InputError
from trex2_lightning.layers.decoder import Decoder
from trex2_lightning.layers.encoder import DeformableEncoder
from trex2_lightning.layers.mlp import FeedForward
from trex2_lightning.models.appearance import Appearance, AppearanceInput, AppearanceTerm
from trex2_lightning.models.backbone import Backbone, Neck
from trex2_lightning.models.calibration import ScoreCalibration
from trex2_lightning.models.presence import PresenceHead
from trex2_lightning.models.selection import QuerySelection, SimilarityHead
from trex2_lightning.models.text import TextEncoder
from trex2_lightning.models.visual_prompt import VisualPromptEncoder
from trex2_lightning.ops.prompt_tokens import category_means, category_vectors, from_vectors
from trex2_lightning.ops.scores import category_scores
from trex2_lightning.structures import (
    Detections,
    DetectorOutput,
    FeatureMaps,
    Images,
    NoisedQueries,
    Prompts,
    PromptTokens,
)


class PromptedDetector(nn.Module, ABC):
    """Finds in images what prompts ask for. Where prompts meet the image is the subclass's matter.

    Args:
        prior: initial score of every query; None: logits are plain dot products.
        appearance: compares what is found with exemplars; None: nothing does.
        appearance_input: adds what that sees to queries and visual prompts; None: nothing does.
        appearance_term: adds how much boxes look like exemplars to logits; None: nothing does.
        presence: says whether a category is in the image at all; None: nothing does.
        prompt_bias: whether each prompt has a bias of its own in the logits.
    """

    max_tokens: int | None = None  # prompt tokens that it can be trained on at once; None: any number

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        text_encoder: TextEncoder,
        visual_encoder: VisualPromptEncoder,
        encoder: DeformableEncoder,
        selection: QuerySelection,
        decoder: Decoder,
        prior: float | None,
        appearance: Appearance | None = None,
        appearance_input: AppearanceInput | None = None,
        appearance_term: AppearanceTerm | None = None,
        presence: PresenceHead | None = None,
        *,
        prompt_bias: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.text_encoder = text_encoder
        self.visual_encoder = visual_encoder
        self.encoder = encoder
        self.selection = selection
        self.decoder = decoder
        width = decoder.width if prompt_bias else None
        self.heads = nn.ModuleList(SimilarityHead(prior, width) for _ in decoder.layers)
        self.noised_content = nn.Linear(decoder.width, decoder.width)
        self.appearance = appearance
        self.appearance_input = appearance_input
        self.appearance_term = appearance_term
        self.calibration = ScoreCalibration()
        self.presence = presence
        self._frozen: frozenset[str] = frozenset()

    @abstractmethod
    def encode_image(self, images: Images) -> FeatureMaps:
        """What can be computed of the images before any prompt is known."""

    @abstractmethod
    def decode(
        self, features: FeatureMaps, prompts: PromptTokens, noised: NoisedQueries | None = None
    ) -> DetectorOutput:
        """Find what the prompts ask for."""

    def encode_prompts(self, prompts: Prompts, reference: FeatureMaps | None = None) -> PromptTokens:
        """One vector per category of its exemplars where there are some, else of its phrase or of each of its words.

        Args:
            prompts: what to look for.
            reference: `encode_image` of the B images that exemplars lie on; phrases need none.

        Returns:
            Phrases: of batch size 1. Exemplars: of batch size B, valid where a category has some in an image.

        Raises:
            InputError: neither phrases nor exemplars, exemplars without `reference`, or a phrase that cannot be
                encoded.
        """
        if prompts.exemplars is not None:
            if reference is None:
                raise InputError("exemplars need the images they lie on: give reference=encode_image(images)")
            vectors = self.visual_encoder(prompts.exemplars, reference)  # (B, C, D)
            tokens = from_vectors(vectors, prompts.exemplars.valid.any(-1))
            if self.appearance is None or reference.appearance is None:
                return tokens
            shown = self.appearance.exemplars(prompts.exemplars, reference.appearance)
            if self.appearance_input is not None:
                means = category_means(shown, vectors.shape[1])
                tokens = tokens._replace(embed=vectors + self.appearance_input.of_exemplars(means))
            return tokens._replace(appearance=shown)
        if not prompts.phrases:
            raise InputError("there is nothing to look for: give phrases or exemplars")
        with self._recording("text_encoder"):
            return self.text_encoder(prompts.phrases)

    def prepared(self, prompts: PromptTokens) -> PromptTokens:
        """The same prompts, to be asked of many images: what depends on no image is computed here, once."""
        if self.appearance is None or prompts.appearance is None:
            return prompts
        return prompts._replace(appearance=self.appearance.whitened(prompts.appearance))

    def scores(self, output: DetectorOutput) -> Tensor:
        """Scores (B, Q, C) in [0, 1] of the last layer's queries, each times its category's presence."""
        scores = category_scores(output.queries.logits[-1], output.prompts.category, output.prompts.valid)
        return scores if output.presence is None else scores * self.present(output)[:, None]

    def present(self, output: DetectorOutput) -> Tensor:
        """The probability (B, C) that an image has a category, 0 where it is not valid.

        Raises:
            InputError: there is no presence head.
        """
        if output.presence is None:
            raise InputError(
                "this detector has no presence head: train one with model.presence=true, from these weights by "
                "train.init_from=FILE"
            )
        return category_scores(output.presence[:, None], output.prompts.category, output.prompts.valid)[:, 0]

    def train_prompts(self, *, text: bool, visual: bool) -> None:
        """Choose which prompt encoders a run trains.

        One that no iteration uses must be frozen: plain DDP waits for ever for a parameter without a gradient. It
        stays in the state dict, so a checkpoint of text training alone loads into training with both.
        """
        self.text_encoder.requires_grad_(text)
        self.visual_encoder.requires_grad_(visual)
        if self.appearance_input is not None:
            self.appearance_input.of_exemplars.requires_grad_(visual)
        if self.appearance_term is not None:
            self.appearance_term.requires_grad_(visual)

    def freeze(self, parts: Collection[str]) -> None:
        """Keep parts as they are: without gradients of their own, and in evaluation mode whatever mode is set.

        Gradients pass through them to what they read, such as visual prompts.

        Args:
            parts: names of the detector's own modules, such as `decoder`.

        Raises:
            InputError: there is no such module.
        """
        modules = dict(self.named_children())
        for part in parts:
            if part not in modules:
                raise InputError(f"train.frozen: the detector has no '{part}'; there are {', '.join(modules)}")
            modules[part].requires_grad_(False)
        self._frozen = frozenset(parts)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            self.get_submodule(part).eval()
        return self

    def checkpoint_activations(self) -> None:
        """Train in less memory and more time: blocks of the backbone and layers of the encoder keep their inputs alone.

        Raises:
            InputError: the backbone cannot.
        """
        self.backbone.checkpoint_activations()
        self.encoder.recomputed = True
        for module in self.encoder.modules():
            if isinstance(module, FeedForward):
                module.keeps_hidden = True  # while its layer is computed again, and no longer

    def _seen(self, images: Images) -> FeatureMaps:
        """Backbone and neck; and what the frozen network sees, which training does not ask for."""
        features = self.neck(self.backbone(images.pixels), images.valid)
        learned = self.appearance_input is not None or self.appearance_term is not None
        if self.appearance is None or (self.training and not learned):
            return features
        return features._replace(appearance=self.appearance(images))

    def _recording(self, *parts: str) -> torch.set_grad_enabled:
        """Nothing is recorded for a backward pass in parts that are all frozen and read nothing but one another."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen.issuperset(parts))

    def _decode_queries(
        self,
        content: Tensor,
        proposals: Detections,
        features: FeatureMaps,
        prompts: PromptTokens,
        noised: NoisedQueries | None,
    ) -> DetectorOutput:
        """Decode the selected queries, and the noised ones in front of them where there are any."""
        boxes = proposals.boxes[0].detach()
        attend, num_noised = None, 0
        if noised is not None:
            num_noised = noised.labels.shape[1]
            content = torch.cat([self._noised_content(noised, prompts), content], 1)
            boxes = torch.cat([noised.boxes, boxes], 1)
            attend = attention_with_noised(noised)
        x, boxes = self.decoder(content, boxes, features, attend, prompts.embed, prompts.valid)
        seen = self._appearance_of(boxes[-1].detach(), features)
        if self.appearance_input is not None and seen is not None:
            x = torch.cat([x[:-1], (x[-1] + self.appearance_input.of_queries(seen))[None]])
        logits = torch.stack([head(layer, prompts) for head, layer in zip(self.heads, x, strict=True)])
        if self.appearance_term is not None and seen is not None and prompts.appearance is not None:
            assert self.appearance is not None
            # In training every category has a token; a picture may be asked for some of many.
            size = len(prompts.category) if self.training else int(prompts.category.max()) + 1
            similarity = self.appearance.similarity(seen, prompts.appearance, size)
            term = self.appearance_term(similarity, self.appearance.temperature, prompts.category)
            logits = torch.cat([logits[:-1], (logits[-1] + term)[None]])
        return DetectorOutput(
            queries=Detections(logits[:, :, num_noised:], boxes[:, :, num_noised:]),
            proposals=proposals,
            noised=None if noised is None else Detections(logits[:, :, :num_noised], boxes[:, :, :num_noised]),
            prompts=prompts,
            presence=None if self.presence is None else self.presence(features, prompts, proposals.logits[0]),
        )

    def _appearance_of(self, boxes: Tensor, features: FeatureMaps) -> Tensor | None:
        """Vectors (B, N, A) of boxes, where something learns by them."""
        learns = self.appearance_input is not None or self.appearance_term is not None
        if not learns or self.appearance is None or features.appearance is None:
            return None
        return self.appearance.vectors(features.appearance, boxes)

    def _noised_content(self, noised: NoisedQueries, prompts: PromptTokens) -> Tensor:
        """A noised query starts from the vector of the category that it claims to be: (B, N, D)."""
        vectors = category_vectors(prompts, len(prompts.category)).expand(len(noised.labels), -1, -1)
        index = noised.labels[..., None].expand(-1, -1, vectors.shape[-1])
        return self.noised_content(vectors.gather(1, index))


def attention_with_noised(noised: NoisedQueries) -> Tensor:
    """Which query sees which, (B, N + Q, N + Q): as `noised.attend`, but slots without a target are seen by none."""
    size = len(noised.attend)
    real = torch.ones(len(noised.valid), size, dtype=torch.bool, device=noised.valid.device)
    real[:, : noised.valid.shape[1]] = noised.valid
    itself = torch.eye(size, dtype=torch.bool, device=real.device)  # an empty row of a mask gives NaN
    return (noised.attend & real[:, None]) | itself
