"""GoldG in MDETR's form (arXiv 2104.12763): Flickr30k Entities and mixed GQA, COCO's format with captions.

An entry of `images` is an image with one caption, so an image has several. An annotation's `tokens_positive` are the
stretches of characters of the caption which name its box. A caption judges its own phrases alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trex2_lightning.data.annotations.cleaning import Annotated, annotate
from trex2_lightning.data.annotations.coco_columns import BoxColumns, Dialect, Entry, ImageColumns
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.json_files import json_lists
from trex2_lightning.data.annotations.reading_report import Report, clean
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Spans = tuple[tuple[int, int], ...]


def read_goldg(annotations: Path, store: ImageStore, report: Report) -> Iterator[Annotated]:
    """The captions of a file, each as an image.

    Raises:
        InputError: the file is not JSON, or has no images.
    """
    images, boxes = ImageColumns(store, report, Dialect(_file_names)), BoxColumns(report)
    captions: list[Any] = []
    spans: list[Spans] = []
    same: dict[Spans, Spans] = {}  # millions of boxes share some thousands
    for key, entry in json_lists(annotations, report, ("images", "annotations")):
        if key == "images" and images.add(entry):
            captions.append(entry.get("caption"))
        elif key == "annotations" and boxes.add(entry):
            given = _spans(entry.get("tokens_positive"))
            spans.append(same.setdefault(given, given))
    if not images.ids:
        raise InputError(f"{annotations}: has no list of images; give an annotation file of MDETR")
    for row, chosen in enumerate(boxes.by_image(images.finished())):
        if not images.paths[row]:
            continue
        where = f"image {images.ids[row]}"
        if not isinstance(captions[row], str):
            report.defect("image without a caption", where)
            continue
        phrases = [_phrase(captions[row], spans[index]) for index in chosen]
        named = [(index, phrase) for index, phrase in zip(chosen, phrases, strict=True) if phrase]
        if len(named) < len(chosen):
            report.defect("box without a phrase in its caption", where, len(chosen) - len(named))
        names = [phrase for _, phrase in named]
        yield annotate(
            report,
            where,
            images.paths[row],
            (images.widths[row], images.heights[row]),
            [boxes.corners[4 * index : 4 * index + 4] for index, _ in named],
            names,
            [bool(boxes.crowd[index]) for index, _ in named],
            [boxes.area[index] for index, _ in named],
            list(dict.fromkeys(names)),
            images.ids[row],
        )


FORMAT = Format(
    name="goldg",
    help="GoldG, Flickr30k Entities and mixed GQA as MDETR has them",
    data_sets="Flickr30k Entities, mixed GQA (MDETR)",
    judges="its caption's phrases",
    kinds=("grounding",),
    reader=read_goldg,
    sources=(Argument("annotations", "final_flickr_separateGT_train.json or final_mixed_train.json"),),
)


def _file_names(image: Entry) -> Sequence[Any]:
    """As the file says, and as COCO calls its images since 2017."""
    name = image.get("file_name")
    return [name, name.removeprefix("COCO_train2014_")] if isinstance(name, str) else [name]


def _spans(value: Any) -> Spans:
    """Empty where it is no list of pairs of places."""
    pairs = value if isinstance(value, list) else []
    good = all(isinstance(pair, list) and len(pair) == 2 and all(type(at) is int for at in pair) for pair in pairs)
    return tuple((start, stop) for start, stop in pairs) if good else ()


def _phrase(caption: str, spans: Spans) -> str:
    """The words of all stretches; "" where one is not in the caption."""
    if not all(0 <= start < stop <= len(caption) for start, stop in spans):
        return ""
    return clean(" ".join(caption[start:stop] for start, stop in sorted(spans)))
