"""With which vectors visual prompts of single images are asked in training.

B images of a rank, C categories in their vocabulary, U categories in that of all ranks, D width.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, distributed

from trex2_lightning.ops.prompts import average, complete, from_vectors
from trex2_lightning.structures import PromptTokens

Scope = Literal["image", "batch", "world"]


class SharedPrompts(NamedTuple):
    """Prompts that every image of the batch is asked with, and their vocabulary."""

    prompts: PromptTokens  # `text` and `visual`, for the alignment loss, stay those of the rank's own C categories
    phrases: tuple[str, ...]  # U; C where the scope is not the world
    places: Tensor  # (C,) int64, where the rank's own categories stand in `phrases`


def share_prompts(prompts: PromptTokens, phrases: tuple[str, ...], scope: Scope) -> SharedPrompts:
    """Give each image its prompts, also those of categories that it lacks: its negatives.

    - `image`: its own vector of a category, and for one that it lacks the mean over the images of the batch that have
      it. T-Rex2 prompts an image with itself, against the rest of the mini-batch (issues 50, 62 and 91).
    - `batch`: the same vectors for all images: of each category the mean over the images of the batch that have it.
    - `world`: the same over all ranks' images, and with the categories of all ranks; gradients reach all of them.
      Categories of two ranks are the same if their phrases are. Every rank must call this at the same time.

    A category of which no image has exemplars is not valid.

    Args:
        prompts: of batch size B, with one vector per category, valid where the image has exemplars of it.
        phrases: C of them, all different.
        scope: as above.
    """
    if scope == "world":
        return _share_with_the_world(prompts, phrases)
    means = average(prompts)
    return SharedPrompts(complete(prompts, means) if scope == "image" else means, phrases, prompts.category)


def _share_with_the_world(prompts: PromptTokens, phrases: tuple[str, ...]) -> SharedPrompts:
    parallel = distributed.is_available() and distributed.is_initialized()
    gathered = [phrases]
    if parallel:
        gathered *= distributed.get_world_size()
        distributed.all_gather_object(gathered, phrases)
    union = tuple(sorted(set().union(*gathered)))
    place = {phrase: number for number, phrase in enumerate(union)}
    places = torch.tensor([place[phrase] for phrase in phrases], device=prompts.embed.device)

    own = prompts.embed.masked_fill(~prompts.valid[..., None], 0).sum(0)  # (C, D)
    sums = own.new_zeros(len(union), own.shape[1]).index_add(0, places, own)
    counts = places.new_zeros(len(union)).index_add(0, places, prompts.valid.sum(0))
    if parallel:
        sums = _SumOverRanks.apply(sums)
        distributed.all_reduce(counts)
    shared = from_vectors((sums / counts.clamp(min=1)[:, None])[None], (counts > 0)[None])
    return SharedPrompts(shared._replace(text=prompts.text, visual=prompts.visual), union, places)


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
