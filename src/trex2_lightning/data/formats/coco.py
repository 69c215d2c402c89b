"""COCO's format and its relatives, in one pass over a file of any size: https://cocodataset.org/#format-data.

The lists may come in any order and the annotations need not be sorted by image, so boxes wait in columns, some 50
bytes each, until the file is read. Images are then given in the file's order.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.data.annotations.annotated import Annotated, Report, annotate, is_id, locate, places, xywh
from trex2_lightning.data.annotations.json_files import json_lists
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Entry = dict[str, Any]


class Dialect(NamedTuple):
    """What a relative of COCO's format has otherwise."""

    file_names: Callable[[Entry], Sequence[Any]] = lambda image: [image.get("file_name")]  # the first found is taken
    name: Callable[[Entry], Any] = lambda category: category.get("name")
    group: Callable[[Entry], str] = lambda category: str(category.get("group", ""))
    # Ids that an image's entry names as absent, and those not all of whose objects are marked; None: all judged.
    verdict: Callable[[Entry], tuple[Any, Any]] | None = None


COCO = Dialect()
NAN = float("nan")
BLOCK = 2**20  # boxes that are looked up at once


def read_coco(annotations: Path, store: ImageStore, report: Report, dialect: Dialect = COCO) -> Iterator[Annotated]:
    """The images of a COCO file.

    Raises:
        InputError: the file is not JSON, or lacks images or categories.
    """
    images, boxes = Images(store, report, dialect), Boxes(report)
    categories: list[Entry] = []
    for key, entry in json_lists(annotations, report):
        if key == "images":
            images.add(entry)
        elif key == "annotations":
            boxes.add(entry)
        elif key == "categories":
            if isinstance(entry, dict) and is_id(entry.get("id")):
                categories.append(entry)
            else:
                report.count("category without an integer id", f"category {len(categories)}")
    for name, entries in {"images": len(images.ids), "categories": len(categories)}.items():
        if not entries:
            raise InputError(f"{annotations}: has no list of {name}; give an annotation file in COCO format")
    categories = [entry for entry in categories if not _is_heading(entry, categories, boxes, report)]
    names = report.declare((entry["id"], dialect.name(entry), dialect.group(entry)) for entry in categories)

    called = [names.get(category_id, "") for category_id in boxes.category_ids]
    for row, chosen in enumerate(boxes.by_image(images.finished())):
        if not images.paths[row]:
            continue
        where = f"image {images.ids[row]}"
        known = [index for index in chosen if called[boxes.category[index]]]
        if len(known) < len(chosen):
            report.count("box of an unknown category", where, len(chosen) - len(known))
        labels = [called[boxes.category[index]] for index in known]
        yield annotate(
            report,
            where,
            images.paths[row],
            (images.widths[row], images.heights[row]),
            [boxes.corners[4 * index : 4 * index + 4] for index in known],
            labels,
            [bool(boxes.crowd[index]) for index in known],
            [boxes.area[index] for index in known],
            _judged(images.verdicts.get(row), labels, names, where, report),
            images.ids[row],
        )


class Boxes:
    """The annotations of a file as columns."""

    def __init__(self, report: Report) -> None:
        self.ids = array("q")
        self.image = array("q")
        self.category = array("i")  # place in `category_ids`
        self.category_ids: dict[int, int] = {}  # place by id, in the order of the places
        self.corners = array("f")
        self.area = array("f")
        self.crowd = array("b")
        self._report = report

    def add(self, entry: Any) -> bool:
        """Whether it was an annotation."""
        where = f"annotation {entry.get('id') if isinstance(entry, dict) else entry!r:.40}"
        if not isinstance(entry, dict) or not is_id(entry.get("image_id")):
            self._report.count("annotation without an image", where)
            return False
        if not is_id(entry.get("category_id")):
            self._report.count("box of an unknown category", where)
            return False
        area = entry.get("area", NAN)
        own_id = is_id(entry.get("id"))
        self.ids.append(entry["id"] if own_id else -len(self.ids) - 2**62)  # without an id: told apart by its place
        self.image.append(entry["image_id"])
        self.category.append(self.category_ids.setdefault(entry["category_id"], len(self.category_ids)))
        self.corners.extend(xywh(entry.get("bbox")))
        self.area.append(area if type(area) in (int, float) and abs(area) < 1e30 else NAN)
        self.crowd.append(bool(entry.get("iscrowd")))
        return True

    def by_image(self, image_ids: NDArray[np.int64]) -> Iterator[list[int]]:
        """For each image the places of its boxes; those given twice, or of an image that is not there, are counted.

        To be asked once: what only tells whose a box is, is let go, as the boxes may be many millions.
        """
        again = _repeated(np.asarray(self.ids))
        if len(again):
            where = f"annotation {self.ids[again[0]]}"
            self._report.count("annotation id given twice: the first is used", where, len(again))
        self.ids = array("q")
        rows = self._rows(image_ids)
        self.image = array("q")
        rows[again] = -1
        yield from places(rows, len(image_ids))

    def _rows(self, image_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Whose each box is, as a place in `image_ids`, or -1."""
        order = np.argsort(image_ids, kind="stable").astype(np.int32)
        owners = np.asarray(self.image)
        rows = np.empty(len(owners), np.int32)
        for start in range(0, len(owners), BLOCK):
            some = owners[start : start + BLOCK]
            found = np.searchsorted(image_ids, some, sorter=order)
            row = order[np.minimum(found, len(image_ids) - 1)]
            rows[start : start + BLOCK] = np.where(image_ids[row] == some, row, -1)
        unknown = np.flatnonzero(rows < 0)
        if len(unknown):
            self._report.count("annotation of an unknown image", f"image {owners[unknown[0]]}", len(unknown))
        return rows


class Images:
    """The images of a file as columns; the path of one that cannot be used is empty."""

    def __init__(self, store: ImageStore, report: Report, dialect: Dialect) -> None:
        self.ids = array("q")
        self.paths = Texts()
        self.widths = array("i")
        self.heights = array("i")
        self.verdicts: dict[int, tuple[Any, Any]] = {}
        self._seen: set[int] | None = None  # ids, once they do not rise
        self._store = store
        self._report = report
        self._dialect = dialect

    def add(self, entry: Any) -> bool:
        """Whether it was an image, though perhaps one that cannot be used."""
        if not isinstance(entry, dict) or not is_id(entry.get("id")):
            self._report.count("image without an integer id", f"image {len(self.ids)} of the list")
            return False
        if not self._is_new(entry["id"]):
            self._report.count("image id given twice: the first is used", f"image {entry['id']}")
            return False
        size = (entry["width"], entry["height"]) if "width" in entry and "height" in entry else None
        found = locate(self._report, self._store, f"image {entry['id']}", *self._dialect.file_names(entry), size=size)
        path, (width, height) = found or ("", (0, 0))
        if self._dialect.verdict:
            self.verdicts[len(self.ids)] = self._dialect.verdict(entry)
        self.ids.append(entry["id"])
        self.paths.append(path)
        self.widths.append(width)
        self.heights.append(height)
        return True

    def finished(self) -> NDArray[np.int64]:
        """The ids, when all images are there; what only tells ids given twice is let go."""
        self._seen = None
        return np.asarray(self.ids)

    def _is_new(self, image_id: int) -> bool:
        if self._seen is None and (not self.ids or image_id > self.ids[-1]):
            return True
        self._seen = self._seen if self._seen is not None else set(self.ids)
        new = image_id not in self._seen
        self._seen.add(image_id)
        return new


class Texts:
    """Many strings in few bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._stops = array("q", [0])

    def append(self, text: str) -> None:
        self._bytes += os.fsencode(text)
        self._stops.append(len(self._bytes))

    def __getitem__(self, place: int) -> str:
        return os.fsdecode(bytes(self._bytes[self._stops[place] : self._stops[place + 1]]))


def _repeated(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of ids that stand before too; a part of the ids at a time, for they may be many millions."""
    parts = ids.astype("<i8", copy=False).view(np.uint8)[::8]  # by their lowest byte
    again = [np.zeros(0, np.int64)]
    for part in range(0, 256, 16):
        chosen = np.flatnonzero((parts >= part) & (parts < part + 16))
        order = np.argsort(ids[chosen], kind="stable")
        ordered = ids[chosen[order]]
        again.append(chosen[order[1:][ordered[1:] == ordered[:-1]]])
    return np.sort(np.concatenate(again))


def _is_heading(entry: Entry, categories: list[Entry], boxes: Boxes, report: Report) -> bool:
    """Roboflow's exports begin with a category 0 which only names the others' common group."""
    heading = entry["id"] == 0 and entry.get("supercategory") == "none" and 0 not in boxes.category_ids
    heading = heading and any(other.get("supercategory") == entry.get("name") for other in categories)
    if heading:
        report.count("category that only heads the others (Roboflow)", f"category 0, {entry.get('name')}")
    return heading


def _judged(
    verdict: tuple[Any, Any] | None, labels: Sequence[str], names: dict[int, str], where: str, report: Report
) -> list[str] | None:
    if verdict is None:
        return None
    if not all(isinstance(ids, list) for ids in verdict):
        report.count("image that does not say which categories it judges: taken to judge none", where)
        return []
    known = [[names[number] for number in ids if is_id(number) and number in names] for ids in verdict]
    unknown = sum(map(len, verdict)) - sum(map(len, known))
    if unknown:
        report.count("judged category that is unknown", where, unknown)
    absent, partial = known
    return list(dict.fromkeys(name for name in [*labels, *absent] if name not in partial))
