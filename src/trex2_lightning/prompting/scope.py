"""With which vectors visual prompts of single images are asked in training.

B images of a rank, C categories in their vocabulary, U categories in that of all ranks, N further negatives, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, distributed

from trex2_lightning.ops.prompt_tokens import complete, from_vectors
from trex2_lightning.structures import PromptTokens

Scope = Literal["image", "batch", "world"]


class SharedPrompts(NamedTuple):
    """Prompts that the images of the batch are asked with, and their vocabulary."""

    prompts: PromptTokens  # `text` and `visual`, for the alignment loss, stay those of the rank's own C categories
    phrases: tuple[str, ...]  # U; where the scope is not the world those that were given
    places: Tensor  # (C,) int64, where the rank's own categories stand in `phrases`


def share_prompts(
    prompts: PromptTokens, phrases: tuple[str, ...], scope: Scope, *, others: bool = False
) -> SharedPrompts:
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
        prompts: of batch size B, with one vector per category, valid where the image has exemplars of it.
        phrases: C of them, all different; none where the categories belong to one image each and have no names.
        scope: as above.
        others: as above.
    """
    places, names = prompts.category, phrases
    if scope == "world":
        places, names = _union(phrases or _made_up(len(places)), places.device)
    size = len(names) or len(places)
    own = from_vectors(
        _scatter(prompts.embed.masked_fill(~prompts.valid[..., None], 0), places, size),
        _scatter(prompts.valid, places, size),
    )
    total, count = own.embed.sum(0), own.valid.sum(0)  # (U, D), (U,)
    if scope == "world" and _parallel():
        total, count = _SumOverRanks.apply(total), _summed(count)
    if others:
        rest = count - own.valid.long()  # (B, U)
        shared = complete(_mean(total - own.embed, rest), own)
    else:
        shared = _mean(total[None], count[None])
        shared = complete(own, shared) if scope == "image" else shared
    return SharedPrompts(shared._replace(text=prompts.text, visual=prompts.visual), names, places)


def with_negatives(prompts: PromptTokens, vectors: Sequence[Tensor]) -> PromptTokens:
    """Ask every image for N further categories, behind the others; `vectors` are (D,) each."""
    if not vectors:
        return prompts
    negatives = torch.stack([*vectors]).to(prompts.embed).expand(len(prompts.embed), -1, -1)
    embed = torch.cat([prompts.embed, negatives], 1)
    valid = torch.cat([prompts.valid, torch.ones_like(negatives[..., 0], dtype=torch.bool)], 1)
    return from_vectors(embed, valid)._replace(text=prompts.text, visual=prompts.visual)


def _mean(total: Tensor, count: Tensor) -> PromptTokens:
    """Sums (B or 1, U, D) of (B or 1, U) vectors to prompts, valid where there are any."""
    return from_vectors(total / count.clamp(min=1)[..., None], count > 0)


def _scatter(values: Tensor, places: Tensor, size: int) -> Tensor:
    """(B, C, ...) to (B, size, ...), zero where no category goes."""
    return values.new_zeros(len(values), size, *values.shape[2:]).index_copy(1, places, values)


def _union(phrases: tuple[str, ...], device: torch.device) -> tuple[Tensor, tuple[str, ...]]:
    """Where the phrases stand in the vocabulary of all ranks, and that vocabulary."""
    gathered = [phrases]
    if _parallel():
        gathered *= distributed.get_world_size()
        distributed.all_gather_object(gathered, phrases)
    union = tuple(sorted(set().union(*gathered)))
    place = {phrase: number for number, phrase in enumerate(union)}
    return torch.tensor([place[phrase] for phrase in phrases], device=device), union


def _made_up(count: int) -> tuple[str, ...]:
    """Names that no other rank has."""
    rank = distributed.get_rank() if _parallel() else 0
    return tuple(f"{rank}-{number}" for number in range(count))


def _parallel() -> bool:
    return distributed.is_available() and distributed.is_initialized()


class _SumOverRanks(torch.autograd.Function):
    """The sum, whose gradient is the sum of all ranks' gradients (PyTorch's own is deprecated)."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(x: Tensor) -> Tensor:
    x = x.clone()
    distributed.all_reduce(x)
    return x
