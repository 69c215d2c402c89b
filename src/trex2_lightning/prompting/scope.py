"""Among whose images visual prompts are shared in training, and what they are aligned with.

B images of a rank, C categories in their vocabulary, N further phrases, U categories in that of all ranks, D width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from trex2_lightning.ops import distributed
from trex2_lightning.ops.prompt_tokens import complete, from_vectors
from trex2_lightning.structures import CategoryVectors, ExemplarAppearance, PromptTokens

Scope = Literal["image", "batch", "world"]


class SharedPrompts(NamedTuple):
    """Prompts that the images of the batch are asked with, and their vocabulary."""

    prompts: PromptTokens  # of U categories
    phrases: tuple[str, ...]  # U; where the scope is not the world those that were given
    places: Tensor  # (C,) int64, where the rank's own categories stand in `phrases`


def share_prompts(own: PromptTokens, phrases: tuple[str, ...], scope: Scope, *, others: bool = False) -> SharedPrompts:
    """Give each image its prompts, also those of categories that it lacks: its negatives.

    - `image`: its own vector of a category, and for one that it lacks the mean over the images of the batch that have
      it. T-Rex2 prompts an image with itself, against the rest of the mini-batch (issues 50, 62 and 91).
    - `batch`: the same vectors for all images: of each category the mean over the images of the batch that have it.
    - `world`: the same over all ranks' images, and with the categories of all ranks; gradients reach all of them.
      Categories of two ranks are the same if their phrases are. Every rank must call this at the same time.

    With `others` an image's own vector is left out of these means wherever another image has the category, so that it
    cannot be found by copying its exemplars (T-Rex-Omni, arXiv 2511.08997); the scope says among whose images.

    A category of which no image has exemplars is not valid.

    Args:
        own: of batch size B, with one vector per category, valid where the image has exemplars of it.
        phrases: C of them, all different; none where the categories belong to one image each and have no names.
        scope: as above.
        others: as above.
    """
    places, names = own.category, phrases
    if scope == "world":
        places, names = _union(phrases or _made_up(len(places)), places.device)
    size = len(names) or len(places)
    own = from_vectors(
        _scatter(own.embed.masked_fill(~own.valid[..., None], 0), places, size),
        _scatter(own.valid, places, size),
    )
    total, count = own.embed.sum(0), own.valid.sum(0)  # (U, D), (U,)
    if scope == "world":
        total, count = distributed.sum_over_ranks(total), distributed.sum_over_ranks(count)
    if others:
        rest = count - own.valid.long()  # (B, U)
        return SharedPrompts(complete(_mean(total - own.embed, rest), own), names, places)
    mean = _mean(total[None], count[None])
    return SharedPrompts(complete(own, mean) if scope == "image" else mean, names, places)


def share_appearance(own: PromptTokens, places: Tensor) -> ExemplarAppearance | None:
    """Exemplars of the batch that each image is compared with: another image's where one has the category.

    Its own ones are in the image, so that to look like them would mean to be them.

    Args:
        own: of batch size B, with one vector per category, valid where the image has exemplars of it.
        places: (C,) int64, numbers of the categories.
    """
    shown = own.appearance
    if shown is None:
        return None
    size, count = shown.valid.shape  # B, R
    category = shown.category.repeat(size)  # (B * R,)
    image = torch.arange(size, device=category.device)
    itself = image.repeat_interleave(count) == image[:, None]  # (B, B * R)
    elsewhere = own.valid.sum(0) > own.valid.long()  # (B, C)
    valid = shown.valid.flatten() & (itself != elsewhere[:, category])
    return ExemplarAppearance(shown.vectors.flatten(0, 1).expand(size, -1, -1), valid, places[category])


def vectors_of_step(own: PromptTokens, text: Tensor, phrases: tuple[str, ...]) -> CategoryVectors:
    """Each category's mean over all images of all ranks, beside all phrases of all ranks; gradients reach all of them.

    Every rank must call this at the same time. The step is one forward pass of every rank: batches whose gradients are
    accumulated are apart.

    Args:
        own: of batch size B, with one vector per category, valid where the image has exemplars of it.
        text: (1, C + N, D) of all phrases.
        phrases: C + N, all different, the categories' first.
    """
    places, names = _union(phrases, text.device)
    visual = own.embed.masked_fill(~own.valid[..., None], 0).sum(0, keepdim=True)  # (1, C, D)
    of_visual, size = places[: visual.shape[1]], len(names)
    told = torch.ones_like(places)[None]
    counts = torch.cat([_scatter(own.valid.sum(0, keepdim=True), of_visual, size), _scatter(told, places, size)])
    totals = torch.cat([_scatter(visual, of_visual, size), _scatter(text, places, size)])
    counts, totals = distributed.sum_over_ranks(counts), distributed.sum_over_ranks(totals)  # (2, U), (2, U, D)
    seen, named = (totals / counts.clamp(min=1)[..., None]).split(1)
    return CategoryVectors(named, seen, counts[:1] > 0)


def _mean(total: Tensor, count: Tensor) -> PromptTokens:
    """Sums (B or 1, U, D) of (B or 1, U) vectors to prompts, valid where there are any."""
    return from_vectors(total / count.clamp(min=1)[..., None], count > 0)


def _scatter(values: Tensor, places: Tensor, size: int) -> Tensor:
    """(B, C, ...) to (B, size, ...), zero where no category goes."""
    return values.new_zeros(len(values), size, *values.shape[2:]).index_copy(1, places, values)


def _union(phrases: tuple[str, ...], device: torch.device) -> tuple[Tensor, tuple[str, ...]]:
    """Where the phrases stand in the vocabulary of all ranks, and that vocabulary."""
    union = tuple(sorted(set().union(*distributed.from_every_rank(phrases))))
    place = {phrase: number for number, phrase in enumerate(union)}
    return torch.tensor([place[phrase] for phrase in phrases]).to(device, non_blocking=True), union


def _made_up(count: int) -> tuple[str, ...]:
    """Names that no other rank has."""
    return tuple(f"{distributed.own_rank()}-{number}" for number in range(count))
