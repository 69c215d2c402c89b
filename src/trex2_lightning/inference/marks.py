"""Exemplars as a person marks them, in pixels, to those that the detector reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.data.images.file_names import at_home
from trex2_lightning.errors import InputError
from trex2_lightning.structures import Box, Exemplar, ExemplarKind, Point, Prompts, PromptTokens

if TYPE_CHECKING:  # who marks without PyTorch reads no marks with it
    from torch import Tensor

Pictured = TypeVar("Pictured")  # an image, as whichever detector takes it
Marks = Mapping[str, Sequence[Exemplar]]  # what is marked in an image, by the category's name
# How people type marks: of the image itself, or of another one.
MARK_FORMS = {"box": "NAME=X1,Y1,X2,Y2", "point": "NAME=X,Y", "reference": "NAME=FILE:X1,Y1,X2,Y2"}


def typed_marks(typed: Mapping[str, Iterable[str]], sign: str = "") -> dict[str, dict[str, list[Exemplar]]]:
    """Exemplars by file, "" for the image itself, and category.

    Args:
        typed: texts by the words of `MARK_FORMS`, in these forms; of a reference also `NAME=FILE:X,Y`.
        sign: before these words in messages, as where they are options.

    Raises:
        InputError: one is not in its form.
    """
    found: dict[str, dict[str, list[Exemplar]]] = {}
    for word, kinds in (("box", (Box,)), ("point", (Point,)), ("reference", (Box, Point))):
        for text in typed.get(word, ()):
            name, _, place = text.partition("=")
            file, _, numbers = place.rpartition(":")
            try:
                values = [float(number) for number in numbers.split(",")]
            except ValueError:
                values = []
            kind = next((kind for kind in kinds if len(fields(kind)) == len(values)), None)
            if not name.strip() or kind is None or bool(file) != (word == "reference"):
                raise InputError(f"{sign}{word} {text}: write {sign}{word} {MARK_FORMS[word]}, in pixels")
            found.setdefault(str(at_home(file)) if file else "", {}).setdefault(name.strip(), []).append(kind(*values))
    return found


def as_references(references: Sequence[tuple[Pictured, Marks]]) -> list[tuple[Pictured, Marks]]:
    """Images with what is marked in them, of which a single one may be alone.

    Raises:
        InputError: one is no such pair, or its marks are not listed by category.
    """
    is_one = isinstance(references, tuple) and len(references) == 2 and isinstance(references[1], Mapping)
    listed: list[Any] = [references] if is_one else list(references)
    for pair in listed:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[1], Mapping):
            raise InputError(f"{pair!r:.80} is no reference: give (image, {{'name': [Box(x1, y1, x2, y2)]}})")
        for name, exemplars in pair[1].items():
            if isinstance(exemplars, Exemplar):
                raise InputError(f"'{name}' has {exemplars!r} and no list: give [{exemplars!r}]")
    return [(image, marks) for image, marks in listed]


def check_kinds(images: Iterable[Marks]) -> None:
    """A category has exemplars of one kind, in all images together: training never mixes them (T-Rex issue 85).

    Raises:
        InputError: it has several, one is no exemplar, or a category has none.
    """
    kinds: dict[str, ExemplarKind] = {}
    for marks in images:
        for name, exemplars in marks.items():
            if not len(exemplars):
                raise InputError(f"'{name}' has no exemplar: give it one, or leave it out")
            for exemplar in exemplars:
                if not isinstance(exemplar, Exemplar):
                    known = " or ".join(kind.__name__ for kind in get_args(Exemplar))
                    raise InputError(
                        f"the exemplar {exemplar!r} of '{name}' is none: make it a {known} of "
                        "trex2_lightning.structures, such as Box(x1, y1, x2, y2) in pixels"
                    )
                first = kinds.setdefault(name, exemplar.kind)
                if first != exemplar.kind:
                    raise InputError(f"'{name}' has a {first} and a {exemplar.kind}: give exemplars of one kind")


def to_boxes(name: str, exemplars: Sequence[Exemplar], size: tuple[int, int]) -> NDArray[np.float32]:
    """The exemplars of the category `name`, to (M, 4) cxcywh in [0, 1]; a point becomes a box without area.

    Args:
        name: for messages.
        exemplars: M of one kind.
        size: height and width of the image.

    Raises:
        InputError: one of them does not lie in the image, or is a box without area.
    """
    height, width = size
    corners = [exemplar.corners for exemplar in exemplars]
    for exemplar, (left, top, right, bottom) in zip(exemplars, corners, strict=True):
        inside = 0 <= left <= right <= width and 0 <= top <= bottom <= height
        if not inside or (exemplar.has_area and (left == right or top == bottom)):
            raise InputError(
                f"{exemplar} of '{name}' is no {exemplar.kind} in its image of {width} x {height} pixels: write "
                f"{exemplar.form}, from 0,0 to {width},{height}"
            )
    shares = np.array(corners, np.float32) / np.array([width, height, width, height], np.float32)
    low, high = shares[:, :2], shares[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], -1)


def check_known(known: bool, images: Sequence[Marks]) -> None:
    """What is marked in images means something to the detector.

    Raises:
        InputError: it does not: trained with text alone, it compares no appearance.
    """
    if images and not known:
        raise InputError(
            "this checkpoint was trained with text alone, so boxes and points mean nothing to it: take one of "
            "stage 2, or leave them out, or let trex2 calibrate add model.appearance.name=backbone"
        )


def read_marks(
    encode: Callable[[Prompts], PromptTokens], size: tuple[int, int], exemplars: Marks
) -> dict[str, tuple[Tensor, Tensor]]:
    """What a detector makes of the exemplars of one image, all of a kind at once.

    Args:
        encode: exemplars on that image to prompt tokens, with appearance where the detector compares it.
        size: height and width of the image.
        exemplars: by category.

    Returns:
        Of each category the vector (D,) and the appearance of its m exemplars (m, A); A = 0: none.
    """
    import torch

    from trex2_lightning.ops.padding import stack_exemplars

    read: dict[str, tuple[Tensor, Tensor]] = {}
    for kind in dict.fromkeys(values[0].kind for values in exemplars.values()):
        marked = {name: values for name, values in exemplars.items() if values[0].kind == kind}
        boxes = [torch.from_numpy(to_boxes(name, values, size)) for name, values in marked.items()]
        tokens = encode(Prompts(exemplars=stack_exemplars([dict(enumerate(boxes))], kind)[1]))
        seen = tokens.appearance
        for place, (name, values) in enumerate(marked.items()):
            own = tokens.embed.new_zeros(len(values), 0)
            if seen is not None:
                own = seen.vectors[0, (seen.category == place) & seen.valid[0]]
            read[name] = (tokens.embed[0, place], own)
    return read
