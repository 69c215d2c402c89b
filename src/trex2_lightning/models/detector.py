"""The one interface of all fusions, and the parts that they share.

B images, C categories, T prompt tokens, S image tokens, Q queries, N noised queries, K decoder layers, D width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Self

import torch
from torch import Tensor, nn

from trex2_lightning.errors import InputError
from trex2_lightning.layers.decoder import BoxHead, Decoder
from trex2_lightning.layers.encoder import DeformableEncoder
from trex2_lightning.layers.mlp import FeedForward
from trex2_lightning.models.appearance import Appearance
from trex2_lightning.models.backbone import Backbone, Neck
from trex2_lightning.models.calibration import ScoreCalibration
from trex2_lightning.models.presence import PresenceHead
from trex2_lightning.models.text import TextEncoder
from trex2_lightning.models.visual_prompt import VisualPromptEncoder
from trex2_lightning.ops.anchors import anchors
from trex2_lightning.ops.prompt_tokens import category_vectors, from_vectors
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
        presence: says whether a category is in the image at all; None: nothing does.
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
        presence: PresenceHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.text_encoder = text_encoder
        self.visual_encoder = visual_encoder
        self.encoder = encoder
        self.selection = selection
        self.decoder = decoder
        self.heads = nn.ModuleList(SimilarityHead(prior) for _ in decoder.layers)
        self.noised_content = nn.Linear(decoder.width, decoder.width)
        self.appearance = appearance
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
            return tokens._replace(appearance=self.appearance.exemplars(prompts.exemplars, reference.appearance))
        if not prompts.phrases:
            raise InputError("there is nothing to look for: give phrases or exemplars")
        with self._recording("text_encoder"):
            return self.text_encoder(prompts.phrases)

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
        if self.appearance is None or self.training:
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
        logits = torch.stack([head(layer, prompts) for head, layer in zip(self.heads, x, strict=True)])
        return DetectorOutput(
            queries=Detections(logits[:, :, num_noised:], boxes[:, :, num_noised:]),
            proposals=proposals,
            noised=None if noised is None else Detections(logits[:, :, :num_noised], boxes[:, :, :num_noised]),
            prompts=prompts,
            presence=None if self.presence is None else self.presence(features, prompts, proposals.logits[0]),
        )

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


class SimilarityHead(nn.Module):
    """Logit of a token for a prompt: their dot product over sqrt(D), plus a learned bias that starts at the `prior`.

    In float32 under autocast too: bfloat16 has three digits, in which good detections tie.

    T-Rex2 names neither scale nor bias; every public re-implementation has both (docs/deviations.md). Without a prior
    there is neither, as in Grounding DINO.
    """

    def __init__(self, prior: float | None) -> None:
        super().__init__()
        self.bias = None if prior is None else nn.Parameter(torch.tensor(-math.log(1 / prior - 1)))

    def forward(self, x: Tensor, prompts: PromptTokens) -> Tensor:
        """(B, Q, D) -> (B, Q, T)."""
        full = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            similarity = x.to(full) @ prompts.embed.to(full).transpose(1, 2)
        return similarity if self.bias is None else similarity / math.sqrt(x.shape[-1]) + self.bias


class QuerySelection(nn.Module):
    """Turns the image tokens most similar to any prompt into queries (Grounding DINO section 3.2).

    The chosen tokens give the queries' boxes; their content is learned (T-Rex issue 82).
    """

    def __init__(self, width: int, num_queries: int, anchor_size: float, prior: float | None) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.anchor_size = anchor_size
        self.project = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.head = SimilarityHead(prior)
        self.box_head = BoxHead(width)
        self.content = nn.Parameter(torch.randn(num_queries, width))

    def forward(self, features: FeatureMaps, prompts: PromptTokens) -> tuple[Tensor, Detections]:
        """Choose Q tokens.

        Returns:
            Content of the queries (B, Q, D) and the proposals (K = 1), whose boxes start the queries.

        Raises:
            InputError: the image has fewer tokens than there are queries.
        """
        if features.tokens.shape[1] < self.num_queries:
            raise InputError(
                f"model.num_queries={self.num_queries} is more than the {features.tokens.shape[1]} tokens of an image "
                f"with levels {features.shapes}: lower it, or raise data.size"
            )
        boxes, usable = anchors(features.shapes, features.valid, features.valid_ratios, self.anchor_size)
        # The tokens that are not chosen have no gradient, so nothing of them need be kept.
        with torch.no_grad(), _without_autocast_cache(features.tokens.device.type):
            logits = self.head(self._memory(features.tokens, usable), prompts)  # (B, S, T)
            best = logits.masked_fill(~prompts.valid[:, None], -torch.inf).amax(-1)
            chosen = best.masked_fill(~usable, -torch.inf).topk(self.num_queries).indices  # (B, Q)
        memory = self._memory(_taken(features.tokens, chosen), usable.gather(1, chosen))
        proposals = Detections(self.head(memory, prompts)[None], self.box_head(memory, _taken(boxes, chosen))[None])
        return self.content.expand(len(memory), -1, -1), proposals

    def _memory(self, tokens: Tensor, usable: Tensor) -> Tensor:
        return self.norm(self.project(tokens.masked_fill(~usable[..., None], 0)))


def _without_autocast_cache(device: str) -> torch.autocast:
    """Autocast as it is; but weights cast within are not used after it, where older PyTorch would give no gradient."""
    return torch.autocast(
        device, torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device), cache_enabled=False
    )


def _taken(x: Tensor, chosen: Tensor) -> Tensor:
    """Rows `chosen` (B, Q) of x (B, S, n): (B, Q, n). `gather` would keep all of x for its gradient."""
    return x[torch.arange(len(x), device=x.device)[:, None], chosen]
