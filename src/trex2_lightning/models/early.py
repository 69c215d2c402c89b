"""Grounding DINO: prompts and image see each other in every layer (arXiv 2303.05499, section 3).

B images, S image tokens, T prompt tokens, h heads, d channels per head, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from trex2_lightning.errors import InputError
from trex2_lightning.layers.attention import Attention
from trex2_lightning.layers.encoder import token_references
from trex2_lightning.layers.mlp import FeedForward
from trex2_lightning.layers.recomputation import call
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.ops.position import sine_embedding
from trex2_lightning.ops.prompt_tokens import parts, take
from trex2_lightning.structures import (
    Detections,
    DetectorOutput,
    ExemplarAppearance,
    FeatureMaps,
    Images,
    NoisedQueries,
    PromptTokens,
)


class EarlyFusionDetector(PromptedDetector):
    """The encoder runs with the prompts; only the neck's features and unfused prompts can be cached.

    Args:
        fusions: one for each layer of the encoder.
        max_tokens: prompt tokens in one pass.
        shared: of `PromptedDetector`.
    """

    def __init__(self, fusions: nn.ModuleList, max_tokens: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.fusions = fusions
        self.max_tokens: int = max_tokens

    def encode_image(self, images: Images) -> FeatureMaps:
        """Backbone and neck."""
        with self._recording("backbone", "neck"):
            return self._seen(images)

    def decode(
        self, features: FeatureMaps, prompts: PromptTokens, noised: NoisedQueries | None = None
    ) -> DetectorOutput:
        """Encoder with fusion, query selection, decoder that attends to the prompts, similarity head on fused prompts.

        More than `max_tokens` prompt tokens are asked for in parts, each of which finds Q queries: the result then has
        the last layer (K = 1) of all parts' queries, whose logits for the other parts' tokens are -inf.

        Raises:
            InputError: more than `max_tokens` where a gradient is wanted; losses need all queries' logits. Training
                leaves out categories before (`ops.prompt_tokens.fitting`).
        """
        indices = parts(prompts, self.max_tokens)
        if len(indices) == 1:
            return self._decode(features, prompts, noised)
        if torch.is_grad_enabled():
            raise InputError(
                f"the prompts make {len(prompts.category)} tokens, but early fusion reads "
                f"model.max_tokens={self.max_tokens} at once where gradients are taken: ask for fewer categories at a "
                "time, or, to find and not to train, use torch.no_grad()"
            )
        outputs = [self._decode(features, _part(prompts, index), None) for index in indices]
        return DetectorOutput(
            queries=_merge([output.queries for output in outputs], indices, len(prompts.category)),
            proposals=_merge([output.proposals for output in outputs], indices, len(prompts.category)),
            noised=None,
            prompts=prompts,
            presence=_merged_presence([output.presence for output in outputs], indices, prompts),
        )

    def _decode(self, features: FeatureMaps, prompts: PromptTokens, noised: NoisedQueries | None) -> DetectorOutput:
        features, prompts = self.fuse(features, prompts)
        content, proposals = self.selection(features, prompts)
        return self._decode_queries(content, proposals, features, prompts, noised)

    def fuse(self, features: FeatureMaps, prompts: PromptTokens) -> tuple[FeatureMaps, PromptTokens]:
        """The feature enhancer (Grounding DINO section 3.1): image tokens and prompts (B, T, D) of each other."""
        reference = token_references(features)
        prompts = prompts._replace(embed=prompts.embed.expand(len(features.tokens), -1, -1))
        for fusion, layer in zip(self.fusions, self.encoder.layers, strict=True):
            tokens, embed = call(fusion, features.tokens, features.valid, prompts, recomputed=self.encoder.recomputed)
            features, prompts = features._replace(tokens=tokens), prompts._replace(embed=embed)
            tokens = call(layer, features, reference, recomputed=self.encoder.recomputed)
            features = features._replace(tokens=tokens)
        return features, prompts


def _part(prompts: PromptTokens, index: Tensor) -> PromptTokens:
    """Some of the tokens, and the exemplars of their categories alone."""
    some, shown = take(prompts, index), prompts.appearance
    if shown is None:
        return some
    own = torch.isin(shown.category, some.category)
    white = None if shown.white is None else shown.white[:, own]
    shown = ExemplarAppearance(shown.vectors[:, own], shown.valid[:, own], shown.category[own], white)
    return some._replace(appearance=shown)


class FusionLayer(nn.Module):
    """Bi-directional attention of image and prompts, then self-attention of the prompts.

    Heads and the feed-forward width are half of the encoder's, as in Grounding DINO.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.attention = BiAttention(width, heads // 2, ffn // 2, drop_path)
        self.self_attention = Attention(width, heads // 2, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, ffn // 2, dropout)

    def forward(self, tokens: Tensor, valid: Tensor, prompts: PromptTokens) -> tuple[Tensor, Tensor]:
        """Image tokens (B, S, D), valid (B, S) and prompts -> tokens (B, S, D) and prompt vectors (B, T, D)."""
        tokens, embed = self.attention(tokens, valid, prompts.embed, prompts.valid)
        position = sine_embedding(prompts.position[:, None].float(), embed.shape[-1])  # (T, D)
        query = embed + position
        embed = self.norm(embed + self.dropout(self.self_attention(query, query, embed, prompts.attend[None])))
        return tokens, self.feed_forward(embed)


class BiAttention(nn.Module):
    """Image tokens attend to prompts and, by the same scores, prompts to image tokens (GLIP, section 3.2).

    There are many more image tokens than prompts, so image side's projections are applied to the prompts' side of each
    product instead where that is faster, which changes nothing but the cost: q (k W)' = (q W') k'. On a CPU that is
    everywhere, on a GPU where prompts read the image: there a kernel that stores no scores is faster for the rest.
    """

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.heads = heads
        self.image_norm = nn.LayerNorm(width)
        self.prompt_norm = nn.LayerNorm(width)
        self.image_query = nn.Linear(width, hidden)
        self.prompt_key = nn.Linear(width, hidden)
        self.image_value = nn.Linear(width, hidden)
        self.prompt_value = nn.Linear(width, hidden)
        self.image_output = nn.Linear(hidden, width)
        self.prompt_output = nn.Linear(hidden, width)
        self.image_scale = nn.Parameter(torch.full((width,), 1e-4))
        self.prompt_scale = nn.Parameter(torch.full((width,), 1e-4))
        self.drop_path = StochasticDepth(drop_path, "row")
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor, valid: Tensor, prompts: Tensor, prompts_valid: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            image: (B, S, D).
            valid: (B, S) bool.
            prompts: (B, T, D).
            prompts_valid: (B or 1, T) bool.

        Returns:
            Image (B, S, D) and prompts (B, T, D).
        """
        image, prompts = self.image_norm(image), self.prompt_norm(prompts)
        attend = self.by_kernels if image.is_cuda else self.by_scores
        to_image, to_prompts = attend(image, valid, prompts, prompts_valid)
        image = image + self.drop_path(self.image_scale * to_image)
        return image, prompts + self.drop_path(self.prompt_scale * to_prompts)

    def by_scores(self, image: Tensor, valid: Tensor, prompts: Tensor, prompts_valid: Tensor) -> tuple[Tensor, Tensor]:
        """What the image reads of the prompts and they of it, of normalised ones, by one table of scores."""
        key = self._key(prompts)
        bias = self.image_query.bias.unflatten(0, (self.heads, -1, 1))  # (h, d, 1)
        scores = image @ self._folded(key).flatten(1, 2).transpose(1, 2) + (key @ bias).flatten(1)[:, None]
        scores = scores.unflatten(-1, (self.heads, -1))  # (B, S, h, T)
        lowest = torch.finfo(scores.dtype).min
        hidden = ~prompts_valid[:, None, None]  # (B or 1, 1, 1, T)
        of_prompts = scores.masked_fill(hidden, lowest).softmax(-1).masked_fill(hidden, 0)  # 0: nothing may be valid
        of_image = scores.masked_fill(~valid[..., None, None], lowest).softmax(1)
        weight = self.image_output.weight.T.unflatten(0, (self.heads, -1))  # (h, d, D)
        value = self._split(self.prompt_value(prompts)) @ weight  # (B, h, T, D)
        to_image = of_prompts.flatten(2) @ value.flatten(1, 2) + self.image_output.bias
        read = of_image.flatten(2).transpose(1, 2) @ image  # (B, h * T, D)
        return to_image, self._of_image(read)

    def by_kernels(self, image: Tensor, valid: Tensor, prompts: Tensor, prompts_valid: Tensor) -> tuple[Tensor, Tensor]:
        """The same by attention that stores no scores."""
        key, query = self._key(prompts), self._split(self.image_query(image))
        some = prompts_valid.any(-1, keepdim=True)[:, None, None]  # (B or 1, 1, 1, 1)
        seen = prompts_valid[:, None, None] | ~some  # an empty row of a mask gives NaN
        value = self._split(self.prompt_value(prompts))
        read = F.scaled_dot_product_attention(query, key, value, seen, scale=1.0).masked_fill(~some, 0)
        to_image = self.image_output(read.transpose(1, 2).flatten(2))
        # The query's bias is the same for all places of the image, so it has no part in what prompts read of them.
        folded, image = self._folded(key).flatten(1, 2)[:, None], image[:, None]  # (B, 1, h * T, D), (B, 1, S, D)
        read = F.scaled_dot_product_attention(folded, image, image, valid[:, None, None], scale=1.0)
        return to_image, self._of_image(read[:, 0])

    def _key(self, prompts: Tensor) -> Tensor:
        """(B, h, T, d), scaled."""
        return self._split(self.prompt_key(prompts)) / (self.image_query.out_features / self.heads) ** 0.5

    def _folded(self, key: Tensor) -> Tensor:
        """Keys (B, h, T, d) for the image as it is: (B, h, T, D)."""
        return key @ self.image_query.weight.unflatten(0, (self.heads, -1))

    def _of_image(self, read: Tensor) -> Tensor:
        """Means of the image (B, h * T, D) to what the prompts take of it, (B, T, D)."""
        weight = self.image_value.weight.unflatten(0, (self.heads, -1))  # (h, d, D)
        bias = self.image_value.bias.unflatten(0, (self.heads, 1, -1))  # (h, 1, d)
        read = read.unflatten(1, (self.heads, -1))
        return self.prompt_output((read @ weight.transpose(1, 2) + bias).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, h * d) -> (B, h, T, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _merge(found: list[Detections], indices: list[Tensor], num_tokens: int) -> Detections:
    logits = []
    for detections, index in zip(found, indices, strict=True):
        last = detections.logits[-1:]
        logits.append(last.new_full((*last.shape[:-1], num_tokens), -torch.inf).index_copy(-1, index, last))
    return Detections(torch.cat(logits, 2), torch.cat([detections.boxes[-1:] for detections in found], 2))


def _merged_presence(found: list[Tensor | None], indices: list[Tensor], prompts: PromptTokens) -> Tensor | None:
    """Each part's logits (B, T of the part) at its tokens: (B, T)."""
    merged: Tensor | None = None
    for presence, index in zip(found, indices, strict=True):
        if presence is not None:
            whole = presence.new_zeros(len(presence), len(prompts.category)) if merged is None else merged
            merged = whole.index_copy(1, index, presence)
    return merged
