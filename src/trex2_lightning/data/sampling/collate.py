"""Examples of different sizes to one `Batch`.

B images, C categories in the batch vocabulary, n boxes of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trex2_lightning.data.sampling.exemplars import background_exemplars, jittered, sample_exemplars
from trex2_lightning.data.sampling.mixture import TrainSet
from trex2_lightning.data.sampling.rhythm import ImageSource, PromptKind
from trex2_lightning.data.sampling.vocabulary import (
    NO_FOREIGN,
    ForeignNames,
    NearNames,
    batch_vocabulary,
    drawn_negatives,
)
from trex2_lightning.structures import Batch, Images, Prompts, Targets

STRIDE = 32  # of a backbone's last feature map: padding to its multiple keeps all levels aligned


class Example(NamedTuple):
    """One image as the data set gives it."""

    pixels: Tensor  # (3, h, w) normalised
    boxes: Tensor  # (n, 4) cxcywh in [0, 1]
    labels: Tensor  # (n,) int64, index into the data set's names
    size: tuple[int, int]  # height and width of the original file in pixels
    image_id: int
    seed: int = 0  # what the example was augmented with
    skipped: int = 0  # unreadable images that it stands for
    judged: Tensor | None = None  # (k,) int64, as in `ImageRecord`
    kind: PromptKind = "text"  # what it is asked with, the same for all of a batch
    source: ImageSource = "any"  # where it was taken from, the same for all of a batch
    number: int = 0  # of its data set, the same for all of a batch


def collate_mixture(
    examples: Sequence[Example],
    sets: Sequence[TrainSet],
    count: int,
    max_exemplars: int,
    jitter: float = 0.0,
    background: int = 0,
) -> Batch:
    """`collate_train` with the names and negatives of the set that the examples are of.

    Exemplars are `jittered` by that share, and with `background` there are so many of what shows nothing.
    """
    chosen = sets[examples[0].number]
    batch = collate_train(examples, chosen.names, chosen.pool, count, max_exemplars, chosen.foreign, chosen.near)
    batch, exemplars = batch._replace(data_set=chosen.name), batch.prompts.exemplars
    if exemplars is None:
        return batch
    generator = torch.Generator().manual_seed(examples[0].seed + 1)
    if jitter:
        sizes = torch.tensor([example.pixels.shape[1:] for example in examples])
        batch = batch._replace(prompts=batch.prompts._replace(exemplars=jittered(exemplars, sizes, jitter, generator)))
    if background and batch.prompts.judged is None:  # else unmarked things may be anywhere
        nothing = background_exemplars(batch.targets, background, exemplars.kind, generator)
        batch = batch._replace(background=nothing)
    return batch


def collate_train(
    examples: Sequence[Example],
    names: Sequence[str],
    pool: Sequence[str],
    count: int,
    max_exemplars: int,
    foreign: ForeignNames = NO_FOREIGN,
    near: NearNames | None = None,
) -> Batch:
    """A batch that asks for its own categories, drawn by the first example's seed.

    Asked with text, there are `count` negatives out of `pool` too, a share of them `near`, and `foreign` names.
    Asked visually, each image gives some of its boxes as exemplars, at most `max_exemplars` per category, and
    negatives are the categories of the others (issue 62); the phrases go along for the alignment, beside `count`
    that no image shows. Nameless examples, whose labels are another data set's, have none.

    What an example does not judge is no negative of it. Where all examples say what they judge, negatives are drawn out
    of that instead of `pool`: a phrase that none of them judges would teach nothing. A caption judges its own phrases;
    negatives drawn for it are taken as absent (T-Rex2, section 3.3); of other captions' phrases nothing is known. An
    image that lists what it judges does not judge foreign names, and where all do, or are captions, none are drawn.
    """
    generator = torch.Generator().manual_seed(examples[0].seed)
    labels, kind, source = [example.labels for example in examples], examples[0].kind, examples[0].source
    if source == "nameless":
        present, numbers = torch.cat(labels).unique(return_inverse=True)
        num_categories = max(len(present), 1)  # a detector needs something to look for
        batch = _batch(examples, (), numbers.split([len(image) for image in labels]))
    else:
        judged = [
            None if some.judged is None else {names[label] for label in some.judged.tolist()} for some in examples
        ]
        is_caption, all_say = source == "grounding", None not in judged
        said = sorted(set().union(*filter(None, judged))) if all_say and not is_caption else ()
        further = NO_FOREIGN if all_say or is_caption or kind != "text" else foreign
        vocabulary = batch_vocabulary(
            labels, names, said or pool, count if kind == "text" else 0, generator, further, near
        )
        num_categories = len(vocabulary.phrases)
        batch = _batch(examples, vocabulary.phrases, vocabulary.labels)
        if is_caption:
            own = [{names[label] for label in image.tolist()} for image in labels]
            drawn = set(vocabulary.phrases) - set().union(*own)
            judged = [phrases | drawn for phrases in own]
        batch = batch._replace(prompts=batch.prompts._replace(judged=_table(judged, vocabulary.phrases)))
    if kind == "text":
        return batch
    exemplars = sample_exemplars(batch.targets, num_categories, max_exemplars, kind, generator)
    prompts = batch.prompts._replace(exemplars=exemplars)
    negatives = drawn_negatives(prompts.phrases, pool, count, generator, near) if prompts.phrases else ()
    return batch._replace(prompts=prompts, cross_image=source == "cross_image", negatives=tuple(negatives))


def collate_eval(examples: Sequence[Example], names: Sequence[str]) -> Batch:
    """A batch that asks for all names in the data set's order."""
    return _batch(examples, tuple(names), [example.labels for example in examples])


def pad(images: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Images:
    """Zeros right and below, up to the largest height and width, rounded up to a multiple of 32.

    Args:
        images: B x (3, h, w).
        sizes: B heights and widths of the original files.
    """
    height, width = (-(-max(image.shape[axis] for image in images) // STRIDE) * STRIDE for axis in (1, 2))
    pixels = images[0].new_zeros(len(images), 3, height, width)
    valid = torch.zeros(len(images), height, width, dtype=torch.bool)
    for index, image in enumerate(images):
        _, h, w = image.shape
        pixels[index, :, :h, :w] = image
        valid[index, :h, :w] = True
    return Images(pixels, valid, torch.tensor(sizes))


def _table(judged: Sequence[set[str] | None], phrases: Sequence[str]) -> Tensor | None:
    """(B, C) bool, which of the phrases each image judges; None: all of them everywhere."""
    if all(known is None for known in judged):
        return None
    return torch.tensor([[known is None or phrase in known for phrase in phrases] for known in judged])


def _batch(examples: Sequence[Example], phrases: tuple[str, ...], labels: Iterable[Tensor]) -> Batch:
    return Batch(
        images=pad([example.pixels for example in examples], [example.size for example in examples]),
        prompts=Prompts(phrases),
        targets=tuple(
            Targets(categories, example.boxes, example.image_id)
            for example, categories in zip(examples, labels, strict=True)
        ),
        skipped=sum(example.skipped for example in examples),
    )
