"""Reads detection data sets in COCO format, with every broken reference named and every bad box mended and counted.

The format: https://cocodataset.org/#format-data. A category may have a `group`, for which AP is reported apart.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trex2_lightning.errors import InputError

logger = logging.getLogger(__name__)


class CocoError(InputError):
    """A data set cannot be used; the message is one line which names the file, the entry and what to do."""


class ImageRecord(NamedTuple):
    """One image and its n annotated boxes."""

    id: int
    path: Path
    width: int  # pixels
    height: int
    boxes: Tensor  # (n, 4) float32, xyxy in pixels, within the image
    labels: Tensor  # (n,) int64, index into `Records.names`
    crowd: Tensor  # (n,) bool, the box surrounds an uncounted crowd: neither target nor false positive
    area: Tensor  # (n,) float32, the file's `area` (of the object's mask), else the box's, square pixels
    # (k,) int64, labels whose presence and all of whose boxes the data set knows here; None: all. One that is judged
    # and has no box is absent; one with a box that is not judged may have more of them.
    judged: Tensor | None = None
    exemplars: Tensor | None = None  # (m, 4) float32, xyxy in pixels, what counting benchmarks show as prompts
    num_objects: int | None = None  # where a counting benchmark says it


class Records(NamedTuple):
    """One split of a data set."""

    images: Sequence[ImageRecord]  # in the file's order
    names: tuple[str, ...]  # category names in the file's order
    category_ids: tuple[int, ...]  # the file's ids of `names`
    groups: tuple[str, ...]  # the categories' `group`, "" where they have none
    annotations: Path  # the file
    num_dropped: int = 0  # boxes without area inside their image
    num_clipped: int = 0  # boxes that reached out of their image


def read_coco(annotations: Path, images: Path) -> Records:
    """Read the JSON file `annotations`, whose `file_name`s are relative to the folder `images`.

    Boxes are clipped to their image and dropped if no area is left; both are counted, and reported by `logging`.
    The images themselves are not opened.

    Raises:
        CocoError: a missing file or folder, not JSON, missing keys, duplicate ids or category names, or an annotation
            of an unknown image or category.
    """
    return from_coco(parse(annotations), annotations, images)


def from_coco(content: dict[str, Any], annotations: Path, images: Path) -> Records:
    """As `read_coco`, of the file's `content`."""
    if not images.is_dir():
        raise CocoError(f"{images}: no such image folder; set data.root= to the data set's folder")
    fail = _failure(annotations)
    categories = _entries(content, "categories", ("name",), fail)
    pictures = _entries(content, "images", ("file_name", "width", "height"), fail)
    objects = _entries(content, "annotations", ("image_id", "category_id", "bbox"), fail)
    for name, entries in {"categories": categories, "images": pictures}.items():
        if not entries:
            raise CocoError(f"{annotations}: its list of {name} is empty; give a file that has some")
    names = _names(categories.values(), fail)
    _check_sizes(pictures.values(), fail)
    _check_objects(objects.values(), pictures, categories, fail)

    row = {image_id: index for index, image_id in enumerate(pictures)}
    label = {category_id: index for index, category_id in enumerate(categories)}
    listed = sorted(objects.values(), key=lambda item: row[item["image_id"]])
    owner = torch.tensor([row[item["image_id"]] for item in listed], dtype=torch.int64)
    sizes = torch.tensor([(p["width"], p["height"]) for p in pictures.values()], dtype=torch.float64)
    xywh = torch.tensor([item["bbox"] for item in listed], dtype=torch.float64).reshape(-1, 4)
    boxes, keep, clipped = _clip(xywh, sizes[owner])
    columns = (
        boxes,
        torch.tensor([label[item["category_id"]] for item in listed], dtype=torch.int64),
        torch.tensor([bool(item.get("iscrowd", 0)) for item in listed], dtype=torch.bool),
        torch.tensor([item.get("area", item["bbox"][2] * item["bbox"][3]) for item in listed], dtype=torch.float32),
    )
    counts = owner[keep].bincount(minlength=len(pictures)).tolist()
    per_image = zip(*(column[keep].split(counts) for column in columns), strict=True)
    records = Records(
        images=[
            ImageRecord(p["id"], images / p["file_name"], p["width"], p["height"], *values)
            for p, values in zip(pictures.values(), per_image, strict=True)
        ],
        names=names,
        category_ids=tuple(categories),
        groups=tuple(str(category.get("group", "")) for category in categories.values()),
        annotations=annotations,
        num_dropped=int((~keep).sum()),
        num_clipped=int(clipped.sum()),
    )
    if records.num_dropped or records.num_clipped:
        logger.warning(
            "%s: %d boxes without area in their image dropped, %d boxes clipped to their image",
            annotations,
            records.num_dropped,
            records.num_clipped,
        )
    return records


def _clip(xywh: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Corners (n, 4) within images of `sizes` (n, 2); which boxes have area there, and which of these reached out."""
    corners = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
    boxes = corners.clamp(min=0).minimum(sizes.repeat(1, 2)).float()
    keep = ((xywh[:, 2:] > 0) & (boxes[:, 2:] > boxes[:, :2])).all(1)
    return boxes, keep, keep & ((boxes - corners).abs() > 0.01).any(1)  # files round to two decimals


Fail = Callable[[str, dict[str, Any], str], CocoError]


def _failure(annotations: Path) -> Fail:
    def fail(kind: str, entry: dict[str, Any], reason: str) -> CocoError:
        return CocoError(f"{annotations}: {kind} id {entry.get('id')} {reason}; correct or remove it")

    return fail


def parse(annotations: Path) -> dict[str, Any]:
    """The content of a COCO file, with its three lists; raises CocoError."""
    if not annotations.is_file():
        raise CocoError(f"{annotations}: no such annotation file; set data.root= to the data set's folder")
    try:
        content = json.loads(annotations.read_bytes())
    except ValueError as error:
        raise CocoError(f"{annotations}: not JSON ({error}); give an annotation file in COCO format") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise CocoError(f"{annotations}: has no list '{key}'; give an annotation file in COCO format")
    return content


def _entries(content: dict[str, Any], section: str, keys: tuple[str, ...], fail: Fail) -> dict[int, dict[str, Any]]:
    """The entries of a section by their id, in the file's order."""
    kind = {"categories": "category", "images": "image", "annotations": "annotation"}[section]
    entries: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(content[section]):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
            raise fail(kind, {}, f"(entry {number} of '{section}') is not an integer")
        for key in keys:
            if key not in entry:
                raise fail(kind, entry, f"has no '{key}'")
        if entry["id"] in entries:
            raise fail(kind, entry, "occurs twice")
        entries[entry["id"]] = entry
    return entries


def _names(categories: Iterable[dict[str, Any]], fail: Fail) -> tuple[str, ...]:
    names: dict[str, str] = {}
    for category in categories:
        name = str(category["name"]).strip()
        if not name:
            raise fail("category", category, "has an empty name")
        if name.casefold() in names:  # the text encoder sees no case
            raise fail("category", category, f"has the name '{name}' of another category")
        names[name.casefold()] = name
    return tuple(names.values())


def _check_sizes(pictures: Iterable[dict[str, Any]], fail: Fail) -> None:
    for picture in pictures:
        if not isinstance(picture["file_name"], str):
            raise fail("image", picture, "has a 'file_name' that is not text")
        for side in ("width", "height"):
            if not isinstance(picture[side], int) or picture[side] <= 0:
                raise fail("image", picture, f"has {side} {picture[side]!r}, not a positive integer")


def _check_objects(
    objects: Iterable[dict[str, Any]],
    pictures: dict[int, dict[str, Any]],
    categories: dict[int, dict[str, Any]],
    fail: Fail,
) -> None:
    for item in objects:
        for key in ("image_id", "category_id"):
            if isinstance(item[key], list | dict):  # else it is unknown, or found as what it equals
                raise fail("annotation", item, f"has the {key} {item[key]!r}, not an integer")
        if item["image_id"] not in pictures:
            raise fail("annotation", item, f"refers to image id {item['image_id']}, which the file does not have")
        if item["category_id"] not in categories:
            raise fail("annotation", item, f"refers to category id {item['category_id']}, which the file does not have")
        box = item["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
            raise fail("annotation", item, f"has the bbox {box!r}, not four finite numbers x, y, width, height")
        if not _is_finite(item.get("area", 0)):
            raise fail("annotation", item, f"has the area {item['area']!r}, not a finite number")


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf
