"""Pseudo-exemplars: what text finds best in pictures prompts too, as if a person had marked it there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import nlargest
from typing import NamedTuple

import torch

from trex2_lightning.errors import InputError
from trex2_lightning.inference.encoding import AnyImage, EncodedImage
from trex2_lightning.inference.inputs import as_phrases
from trex2_lightning.inference.predictor import Predictor, Reference
from trex2_lightning.prompting.prompt_set import Mix, PromptSet
from trex2_lightning.structures import Box, Detection, Exemplar

ONE_OBJECT = 0.5  # IoU from which two boxes of a category show one object, and the worse is no further exemplar


class Refining(NamedTuple):
    """Which of the boxes that a phrase finds become its exemplars."""

    most: int = 3  # the best of all pictures together
    least: float | None = None  # lowest score; None: the checkpoint's threshold of text


BEST_THREE = Refining()


class _Shown(NamedTuple):
    picture: int
    found: Detection


def refine(
    predictor: Predictor,
    phrases: str | Sequence[str],
    pictures: Iterable[AnyImage],
    references: Sequence[Reference] = (),
    mix: Mix = "half",
    refining: Refining = BEST_THREE,
) -> PromptSet:
    """Phrases, each mixed with the best boxes that it finds in the pictures, as `Predictor.mixed` mixes them.

    A phrase that finds nothing, or has exemplars already, stays as `mixed` has it.

    Args:
        predictor: of a detector to which exemplars mean something.
        phrases: text prompts.
        pictures: to look at, one after the other; those with a best box are looked at again, if they are no
            `EncodedImage`.
        references: images with exemplars of a person.
        mix: as of `Predictor.mixed`.
        refining: which boxes.

    Raises:
        InputError: no phrase, a checkpoint of text alone, a score that is none, or as `mixed`.
    """
    phrases = as_phrases(phrases)
    if not phrases:
        raise InputError("there is no phrase whose boxes could become exemplars: give one by --text")
    if not predictor.module.knows_exemplars:
        raise InputError(
            "this checkpoint was trained with text alone, so what text finds cannot prompt it: take one of stage 2, "
            "let trex2 calibrate add model.appearance.name=backbone, or leave out --refine"
        )
    marked = {name for _, marks in references for name in marks}
    asked = tuple(phrase for phrase in phrases if phrase not in marked)
    return predictor.mixed(phrases, [*references, *_exemplars(predictor, asked, pictures, refining)], mix)


def _exemplars(
    predictor: Predictor, phrases: tuple[str, ...], pictures: Iterable[AnyImage], refining: Refining
) -> list[Reference]:
    """The pictures that have one of the best boxes, with them."""
    if not phrases:
        return []
    search = predictor.search(predictor.text(phrases), refining.least, nms=ONE_OBJECT)
    best: dict[str, list[_Shown]] = {phrase: [] for phrase in phrases}
    seen: dict[int, AnyImage] = {}
    for number, picture in enumerate(pictures):
        image = picture if isinstance(picture, EncodedImage) else predictor.encode(picture)
        [found] = search(image.features, torch.tensor([image.size]))
        for one in found:
            left, top, right, bottom = one.box
            if left < right and top < bottom:
                best[one.name] = nlargest(refining.most, [*best[one.name], _Shown(number, one)], key=_score)
        seen[number] = picture
        seen = {place: seen[place] for place in {one.picture for shown in best.values() for one in shown}}
    marks: dict[int, dict[str, list[Exemplar]]] = {number: {} for number in sorted(seen)}
    for name, chosen in best.items():
        for each in chosen:
            marks[each.picture].setdefault(name, []).append(Box(*each.found.box))
    return [(seen[number], own) for number, own in marks.items()]


def _score(shown: _Shown) -> float:
    return shown.found.score
