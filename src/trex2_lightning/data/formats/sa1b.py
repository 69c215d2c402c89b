"""SA-1B (https://ai.meta.com/datasets/segment-anything/) with pseudo labels: one JSON file an image, `sa_1.json`.

    {"image": {"file_name": "sa_1.jpg", "width": 2250, "height": 1500},
     "annotations": [{"bbox": [x, y, w, h], "area": 900, "category": "anything"}, ...]}

SA-1B itself has no categories; T-Rex2's pseudo labels (section 3.3) are not public. Whoever makes some writes them into
the files, as `category`: boxes that have the same one show the same kind of thing in this image. It is no name, and in
another image it means something else.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trex2_lightning.data.annotations import limits
from trex2_lightning.data.annotations.cleaning import Annotated, annotate, dicts, locate, xywh
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.limits import whole
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError


def read_sa1b(annotations: Path, store: ImageStore, report: Report, more_than: int = 1) -> Iterator[Annotated]:
    """The images of a folder of JSON files, and of its subfolders.

    Args:
        more_than: an image is kept where some category has more instances (T-Rex2, section 3.3; its number is unknown).

    Raises:
        InputError: there is no such folder, or no JSON file.
    """
    files = sorted(annotations.rglob("*.json")) if annotations.is_dir() else []
    if not files:
        raise InputError(f"{annotations}: no folder with JSON files; give the one with SA-1B's, one for every image")
    report.sources.append(annotations)
    report.nameless = True
    for number, file in enumerate(files):
        content = _parse(file, report)
        if content is None:
            continue
        image = content["image"]
        size = (image["width"], image["height"]) if "width" in image and "height" in image else None
        found = locate(report, store, file.name, image.get("file_name"), f"{file.stem}.jpg", size=size)
        if not found or not report.is_new(found[0], file.name):
            continue
        entries = list(dicts(content.get("annotations", []), report, file.name))
        labelled = [(entry, key) for entry in entries if (key := _category(entry))]
        if len(labelled) < len(entries):
            report.defect("box without a category", file.name, len(entries) - len(labelled))
        boxes = [xywh(entry.get("bbox")) for entry, _ in labelled]
        areas = [_area(entry.get("area")) for entry, _ in labelled]
        keys = [key for _, key in labelled]
        record = annotate(report, file.name, *found, boxes, keys, area=areas, image_id=number)
        if max(Counter(record.names).values(), default=0) <= more_than:
            report.count(f"image without a category of more than {more_than}", file.name)
            continue
        yield record


FORMAT = Format(
    name="sa1b",
    help="SA-1B with pseudo labels, categories without names",
    data_sets="SA-1B with your pseudo labels",
    judges="its own categories, which have no names",
    kinds=("nameless",),
    reader=read_sa1b,
    sources=(Argument("annotations", "folder with a JSON file for every image"),),
    options=(Argument("more_than", "keep images where a category has more than N instances; default: 1", int, 1),),
)


def _parse(file: Path, report: Report) -> dict[str, Any] | None:
    try:
        with file.open("rb") as opened:
            content = json.loads(whole(opened, file, limits.OF_AN_IMAGE).decode("utf-8-sig"))
    except InputError:
        raise
    except (OSError, ValueError, RecursionError):
        report.defect("annotation file that is not JSON in UTF-8", file.name)
        return None
    if not isinstance(content, dict) or not isinstance(content.get("image"), dict):
        report.defect("annotation file without an image", file.name)
        return None
    return content


def _category(entry: dict[str, Any]) -> str:
    value = entry.get("category")
    return value if isinstance(value, str) else str(value) if type(value) is int else ""


def _area(value: Any) -> float:
    return float(value) if type(value) in (int, float) and 0 < value < 1e30 else math.nan
