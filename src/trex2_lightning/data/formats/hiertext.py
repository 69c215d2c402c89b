"""HierText (https://github.com/google-research-datasets/hiertext): words, lines and paragraphs in photographs.

One JSON object for all images, though the file's name ends in `.jsonl`. Of a polygon its box is taken. What cannot be
read is a crowd: in evaluation it is ignored, as in the data set's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trex2_lightning.data.annotations.cleaning import NO_BOX, Annotated, annotate, as_truth, dicts, locate
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.json_files import json_lists
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

LEVELS = {"paragraph": "paragraphs", "line": "lines", "word": "words"}  # from the outermost; their keys
NAMES = {"paragraph": "paragraph", "line": "line of text", "word": "word"}


def read_hiertext(annotations: Path, store: ImageStore, report: Report, level: str = "word") -> Iterator[Annotated]:
    """The images of a file, with the boxes of one of `LEVELS`.

    Raises:
        InputError: the file is not JSON, or has no annotations.
    """
    name = NAMES[level]
    report.declare([(1, name, "")])
    entries = 0
    for key, entry in json_lists(annotations, report):
        if key != "annotations":
            continue
        entries += 1
        image = entry.get("image_id") if isinstance(entry, dict) else None
        where = f"image {image if isinstance(image, str) else entries}"
        if not isinstance(image, str) or not image:
            report.defect("image without a file name", where)
            continue
        size = (entry["image_width"], entry["image_height"]) if {"image_width", "image_height"} <= set(entry) else None
        found = locate(report, store, where, f"{image}.jpg", size=size)
        if not found or not report.is_new(found[0], where):
            continue
        texts = _texts(entry, level, where, report)
        if texts is None:
            report.defect("image without its lists of texts", where)
            continue
        boxes, legible = (
            [_box(text.get("vertices")) for text in texts],
            [as_truth(text.get("legible", True)) for text in texts],
        )
        if None in legible:
            report.defect("text whose legible is neither true nor false: taken for true", where, legible.count(None))
        unread = [read is False for read in legible]
        yield annotate(report, where, *found, boxes, [name] * len(texts), unread, image_id=entries)
    if not entries:
        raise InputError(f"{annotations}: has no list of annotations; give an annotation file of HierText")


FORMAT = Format(
    name="hiertext",
    help="HierText",
    data_sets="HierText",
    judges="all words, lines or paragraphs",
    kinds=("detection",),
    reader=read_hiertext,
    sources=(Argument("annotations", "train.jsonl or train.jsonl.gz"),),
    options=(Argument("level", "of text; default: word", str, "word", tuple(LEVELS)),),
)


def _texts(entry: dict[str, Any], level: str, where: str, report: Report) -> list[dict[str, Any]] | None:
    """The texts of a level; None: a list is missing, so nobody knows what the image has."""
    found = [entry]
    for name, key in LEVELS.items():
        if not all(isinstance(outer.get(key), list) for outer in found):
            return None
        found = [inner for outer in found for inner in dicts(outer[key], report, where)]
        if name == level:
            break
    return found


def _box(vertices: Any) -> tuple[float, ...]:
    points = vertices if isinstance(vertices, list) else []
    if not points or not all(isinstance(point, list) and len(point) == 2 for point in points):
        return NO_BOX
    if not all(type(number) in (int, float) and abs(number) < 1e9 for point in points for number in point):
        return NO_BOX
    x, y = zip(*points, strict=True)
    return min(x), min(y), max(x), max(y)
