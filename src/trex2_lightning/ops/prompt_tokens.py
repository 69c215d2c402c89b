"""Prompt tokens of category vectors and of words, and means of category vectors (T-Rex2 section 3.4)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trex2_lightning.structures import ExemplarAppearance, PromptTokens


def from_vectors(vectors: Tensor, valid: Tensor | None = None) -> PromptTokens:
    """Prompt tokens of one vector per category.

    Args:
        vectors: (B or 1, C, D).
        valid: (B or 1, C) bool; None: all are.
    """
    index = torch.arange(vectors.shape[1], device=vectors.device)
    return PromptTokens(
        embed=vectors,
        valid=torch.ones_like(vectors[..., 0], dtype=torch.bool) if valid is None else valid,
        category=index,
        attend=torch.eye(len(index), dtype=torch.bool, device=vectors.device),
        position=torch.zeros_like(index),
    )


def from_words(states: Tensor, lengths: Sequence[int]) -> PromptTokens:
    """Prompt tokens of names joined into one sentence, every word with its own vector (Grounding DINO section 3.4).

    A word sees the words of its own name and the token that closes it, no others; positions restart with every name.

    Args:
        states: (R, L, D), a row for each name: its words, then the token that closes it. A row of length 1 is a token
            that stands between or around the names.
        lengths: R, tokens of each row; what stands behind them is ignored.
    """
    sizes = np.array(lengths)
    row = np.repeat(np.arange(len(sizes)), sizes)  # (T,)
    position = np.arange(len(row)) - np.repeat(sizes.cumsum() - sizes, sizes)
    closing = position == sizes[row] - 1
    category = np.where(closing, -1, (np.cumsum(sizes > 1) - 1)[row])
    layout = torch.from_numpy(np.stack([row, position, category])).to(states.device, non_blocking=True)
    row, position, category = layout
    return PromptTokens(
        embed=states[row, position][None],
        valid=torch.ones_like(row, dtype=torch.bool)[None],
        category=category,
        attend=row[:, None] == row,
        position=position,
    )


def category_vectors(prompts: PromptTokens, num_categories: int | None = None) -> Tensor:
    """One vector per category, the mean of its tokens: (B or 1, C, D).

    Args:
        prompts: of C categories.
        num_categories: C or more, further rows being zero; None: looked up, for which a GPU is waited for.
    """
    size = num_categories
    if size is None:
        size = int(prompts.category.max()) + 1 if len(prompts.category) else 0
    category = prompts.category.where(prompts.category >= 0, size)  # the last row is that of no category
    embed = prompts.embed
    total = embed.new_zeros(len(embed), size + 1, embed.shape[-1]).index_add(1, category, embed)
    count = embed.new_zeros(size + 1).index_add(0, category, torch.ones_like(category, dtype=embed.dtype))
    return (total / count.clamp(min=1)[:, None])[:, :size]


def category_means(shown: ExemplarAppearance, num_categories: int) -> Tensor:
    """(B, C, A), over the exemplars of each category that are valid."""
    member = shown.category == torch.arange(num_categories, device=shown.category.device)[:, None]  # (C, R)
    share = (member & shown.valid[:, None]).float()
    return share / share.sum(-1, keepdim=True).clamp(min=1) @ shown.vectors


def by_category(prompts: PromptTokens) -> PromptTokens:
    """Prompt tokens of one vector per category, the mean of its tokens; valid where one of them is."""
    vectors = category_vectors(prompts)
    real = prompts.category >= 0
    count = vectors[..., 0].new_zeros(len(prompts.valid), vectors.shape[1])
    count = count.index_add(1, prompts.category[real], prompts.valid[:, real].to(count))
    return from_vectors(vectors, count > 0)._replace(appearance=prompts.appearance)


def renumbered(prompts: PromptTokens, numbers: Tensor) -> PromptTokens:
    """The same prompts, of categories that are called `numbers` (C,) instead of 0, 1, 2..."""
    category = numbers[prompts.category].where(prompts.category >= 0, -1)
    shown = prompts.appearance
    if shown is not None:
        shown = shown._replace(category=numbers[shown.category])
    return prompts._replace(category=category, appearance=shown)


def only(prompts: PromptTokens, wanted: Tensor) -> PromptTokens:
    """Prompts of which each image is asked for some tokens, and what closes the names they belong to.

    Tokens that stand around all names are asked for in any case.

    Args:
        prompts: T tokens.
        wanted: (B, T) bool, tokens of categories.
    """
    attend, named = prompts.attend, prompts.category >= 0
    beside = wanted.float() @ attend.float() > 0  # (B, T)
    around = ~attend[:, named].any(-1)
    return prompts._replace(valid=prompts.valid & (beside | around))


def together(*prompts: PromptTokens) -> PromptTokens:
    """The tokens of all `prompts`, whose categories are different ones; those of one do not see those of another."""
    return PromptTokens(
        embed=torch.cat([p.embed for p in prompts], 1),
        valid=torch.cat([p.valid for p in prompts], 1),
        category=torch.cat([p.category for p in prompts]),
        attend=torch.block_diag(*(p.attend for p in prompts)).bool(),
        position=torch.cat([p.position for p in prompts]),
        appearance=_appearances([p.appearance for p in prompts if p.appearance is not None]),
    )


def with_vectors(prompts: PromptTokens, vectors: Sequence[Tensor]) -> PromptTokens:
    """Prompts of one vector per category, and behind them N further categories, whose vectors are (D,) each."""
    if not vectors:
        return prompts
    more = torch.stack([*vectors]).to(prompts.embed, non_blocking=True).expand(len(prompts.embed), -1, -1)
    valid = torch.cat([prompts.valid, torch.ones_like(more[..., 0], dtype=torch.bool)], 1)
    return from_vectors(torch.cat([prompts.embed, more], 1), valid)


def parts(prompts: PromptTokens, limit: int) -> list[Tensor]:
    """Split a long list of prompts into parts of whole categories, for models that see few tokens at once.

    Tokens that belong to no category and see none, such as those around a sentence, are in every part.

    Args:
        prompts: T tokens.
        limit: most tokens of a part; a category that is longer is a part by itself.

    Returns:
        For each part the indices of its tokens, ascending.
    """
    if len(prompts.category) <= limit:
        return [torch.arange(len(prompts.category), device=prompts.category.device)]
    block = prompts.attend.int().argmax(1)  # the first token that a token sees
    named = torch.isin(block, block[prompts.category >= 0])
    room = limit - int((~named).sum())
    starts, sizes = block[named].unique_consecutive(return_counts=True)
    owners: list[list[int]] = [[]]
    used = 0
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        if owners[-1] and used + size > room:
            owners.append([])
            used = 0
        owners[-1].append(start)
        used += size
    return [(~named | torch.isin(block, block.new_tensor(owner))).nonzero()[:, 0] for owner in owners]


def take(prompts: PromptTokens, index: Tensor) -> PromptTokens:
    """Some of the tokens, by their places, with the numbers of their categories as they were."""
    return prompts._replace(
        embed=prompts.embed[:, index],
        valid=prompts.valid[:, index],
        category=prompts.category[index],
        attend=prompts.attend[index][:, index],
        position=prompts.position[index],
    )


def owners(prompts: PromptTokens) -> Tensor:
    """(T,) int64, the category that a token belongs to, of a closing token its name's; -1 around all names."""
    return prompts.category[prompts.attend.int().argmax(1)]


def fitting(
    owner: NDArray[np.int64], present: Collection[int], limit: int, generator: torch.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Leave out random categories until there are at most `limit` tokens, present ones where the others do not do.

    One category stays, however long it is. All of it is the host's, which chooses.

    Args:
        owner: (T,) `owners` of C categories.
        present: categories that images have.
        limit: most tokens.
        generator: of the CPU, the only source of randomness.

    Returns:
        The places of the tokens that stay, ascending, and (C + 1,) new numbers of the categories, -1 of what was left
        out and, at the end, of no category.
    """
    sizes = np.bincount(owner[owner >= 0])
    order = torch.randperm(len(sizes), generator=generator).tolist()
    room = limit - int((owner < 0).sum())
    kept: list[int] = []
    for category in sorted(order, key=lambda category: category not in present):
        if sizes[category] <= room or not kept:
            kept.append(category)
            room -= sizes[category]
    numbers = np.full(len(sizes) + 1, -1)
    numbers[sorted(kept)] = np.arange(len(kept))
    return np.flatnonzero((owner < 0) | (numbers[owner] >= 0)), numbers


def average(*prompts: PromptTokens) -> PromptTokens:
    """The mean of each category's valid vectors over all images of all `prompts`, for any image.

    With `text` of batch size 1, where the mean of its words is a category's vector, and `visual` of n reference images:

    - `average(visual)`: generic prompts (T-Rex2, equation 11);
    - `average(text, average(visual))`: mixed prompts, half and half (T-Rex2, section 3.4);
    - `average(text, visual)`: mixed prompts, the plain mean of n + 1 vectors (T-Rex issue 98).

    Args:
        prompts: of the same C categories, all of them there; a category counts where it is valid.

    Returns:
        Of batch size 1; a category that is valid nowhere stays so, with a vector of zeros.
    """
    rows = [by_category(p) for p in prompts]
    vectors = torch.cat([row.embed for row in rows])  # (n, C, D)
    valid = torch.cat([row.valid for row in rows])  # (n, C)
    total = vectors.masked_fill(~valid[..., None], 0).sum(0, keepdim=True)
    mean = total / valid.sum(0, keepdim=True).clamp(min=1)[..., None]
    shown = [_of_any_image(p.appearance) for p in prompts if p.appearance is not None]
    return from_vectors(mean, valid.any(0, keepdim=True))._replace(appearance=_appearances(shown))


def first_images(prompts: PromptTokens, count: int) -> PromptTokens:
    """The prompts of the first `count` of B images."""
    return _images(prompts, slice(count))


def one_image(prompts: PromptTokens, place: int) -> PromptTokens:
    """The prompts of one of B images, of batch size 1."""
    return _images(prompts, slice(place, place + 1))


def _images(prompts: PromptTokens, chosen: slice) -> PromptTokens:
    shown = prompts.appearance
    if shown is not None:
        shown = ExemplarAppearance(shown.vectors[chosen], shown.valid[chosen], shown.category)
    return prompts._replace(embed=prompts.embed[chosen], valid=prompts.valid[chosen], appearance=shown)


def stack(images: Sequence[PromptTokens]) -> PromptTokens:
    """Prompts of one image each, for the same categories and exemplars, as those of a batch."""
    shown = [one.appearance for one in images if one.appearance is not None]
    return images[0]._replace(
        embed=torch.cat([one.embed for one in images]),
        valid=torch.cat([one.valid for one in images]),
        appearance=ExemplarAppearance(
            torch.cat([one.vectors for one in shown]), torch.cat([one.valid for one in shown]), shown[0].category
        )
        if shown
        else None,
    )


def _of_any_image(shown: ExemplarAppearance) -> ExemplarAppearance:
    """The exemplars of all images for any of them."""
    count = len(shown.vectors)
    return ExemplarAppearance(
        shown.vectors.flatten(0, 1)[None], shown.valid.flatten()[None], shown.category.repeat(count)
    )


def _appearances(all_shown: list[ExemplarAppearance]) -> ExemplarAppearance | None:
    """Those of several prompts together, of equal batch sizes."""
    if len(all_shown) < 2:
        return all_shown[0] if all_shown else None
    return ExemplarAppearance(
        torch.cat([shown.vectors for shown in all_shown], 1),
        torch.cat([shown.valid for shown in all_shown], 1),
        torch.cat([shown.category for shown in all_shown]),
    )


def complete(prompts: PromptTokens, others: PromptTokens) -> PromptTokens:
    """`prompts`, and where they are not valid the vectors of `others` (of batch size B or 1).

    `complete(visual, average(visual))` gives an image its own exemplars, and for the categories that it lacks those of
    the other images of its batch.
    """
    embed = prompts.embed.where(prompts.valid[..., None], others.embed)
    return prompts._replace(embed=embed, valid=prompts.valid | others.valid)
