"""The lists of a file in COCO's format as columns, while it is read: https://cocodataset.org/#format-data.

The lists may come in any order and the annotations need not be sorted by image, so boxes wait in columns, some 50
bytes each, until the file is read.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.data.annotations.cleaning import NOT_A_BOX, as_id, as_truth, locate, numbers, places
from trex2_lightning.data.annotations.reading_report import Report
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
    names_as_given: bool = False  # those that differ in case or blanks alone are different categories
    only: str = ""  # the name of the one category that all boxes are of, whatever the file says


ROWS_AT_ONCE = 2**20  # boxes that are looked up at once
NO_ID = 2**62  # annotations without an id are told apart by their place below its negative


class BoxColumns:
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
        report = self._report
        where = f"annotation {entry.get('id') if isinstance(entry, dict) else entry!r:.40}"
        image_id = as_id(entry.get("image_id")) if isinstance(entry, dict) else None
        if image_id is None:
            report.defect("annotation without an image", where)
            return False
        category_id, own_id = as_id(entry.get("category_id")), as_id(entry.get("id"))
        if category_id is None:
            report.defect("box of an unknown category", where)
            return False
        if own_id is None:
            report.defect("annotation without an integer id: told apart by its place", where)
        x, y, width, height = numbers(entry.get("bbox"))
        if report.strict and not all(map(math.isfinite, (x, y, width, height))):  # else it is counted with its image
            report.defect(NOT_A_BOX, where)
        area = entry.get("area", width * height)
        if type(area) not in (int, float) or not abs(area) < 1e30:
            if "area" in entry:
                report.defect("box with an area that is not a finite number: its own is taken", where)
            area = math.nan
        elif area <= 0 and "area" in entry:
            report.count("box with an area of 0 or less: its own is taken", where)
            area = math.nan
        crowd = as_truth(0 if entry.get("iscrowd") in (None, "") else entry["iscrowd"])
        if crowd is None:
            report.defect("box whose iscrowd is neither 0 nor 1: taken for 0", where)
        self.ids.append(-len(self.ids) - NO_ID if own_id is None else own_id)
        self.image.append(image_id)
        self.category.append(self.category_ids.setdefault(category_id, len(self.category_ids)))
        self.corners.extend((x, y, x + width, y + height))
        self.area.append(area)
        self.crowd.append(bool(crowd))
        return True

    def by_image(self, image_ids: NDArray[np.int64], known: Collection[int] | None = None) -> Iterator[list[int]]:
        """For each image the places of its boxes; raises InputError where they are not in pixels.

        Left out, and told to the report, are those given twice, those of an image that is not there and those of a
        category that is not among the ids `known`. To be asked once: what only tells whose a box is, is let go, as the
        boxes may be many millions.
        """
        if len(self.corners) and max(self.corners) <= 1:
            raise InputError(
                f"{self._report.sources[-1]}: no box reaches beyond the first pixel of its image, so they are shares "
                "of it; COCO's format has pixels: multiply them by width and height"
            )
        rows = self._rows(image_ids)
        unknown = np.flatnonzero(rows < 0)
        self._leave_out("annotation of an unknown image", rows, unknown, lambda at: f", image {self.image[at]}")
        self.image = array("q")
        self._leave_out("annotation id given twice: the first is used", rows, _repeated(np.asarray(self.ids)))
        if known is not None:
            ids = list(self.category_ids)
            strange = np.asarray([number not in known for number in ids], np.bool_)[np.asarray(self.category)]
            wrong = np.flatnonzero(strange & (rows >= 0))
            self._leave_out(
                "box of an unknown category", rows, wrong, lambda at: f", category {ids[self.category[at]]}"
            )
        self.ids = array("q")
        yield from places(rows, len(image_ids))

    def _leave_out(
        self,
        reason: str,
        rows: NDArray[np.int32],
        wrong: NDArray[np.int64],
        more: Callable[[int], str] | None = None,
    ) -> None:
        """`more` says what else there is to know of an annotation."""
        if len(wrong):
            first = int(wrong[0])
            own = f"{self.ids[first]}" if self.ids[first] > -NO_ID else f"{first} of the list"
            self._report.defect(reason, f"annotation {own}{more(first) if more else ''}", len(wrong))
            rows[wrong] = -1

    def _rows(self, image_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Whose each box is, as a place in `image_ids`, or -1."""
        order = np.argsort(image_ids, kind="stable").astype(np.int32)
        owners = np.asarray(self.image)
        rows = np.empty(len(owners), np.int32)
        for start in range(0, len(owners), ROWS_AT_ONCE):
            some = owners[start : start + ROWS_AT_ONCE]
            found = np.searchsorted(image_ids, some, sorter=order)
            row = order[np.minimum(found, len(image_ids) - 1)]
            rows[start : start + ROWS_AT_ONCE] = np.where(image_ids[row] == some, row, -1)
        return rows


class ImageColumns:
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
        number = as_id(entry.get("id")) if isinstance(entry, dict) else None
        if number is None:
            self._report.defect("image without an integer id", f"image {len(self.ids)} of the list")
            return False
        if not self._is_new(number):
            self._report.defect("image id given twice: the first is used", f"image {number}")
            return False
        size = (entry["width"], entry["height"]) if "width" in entry and "height" in entry else None
        found = locate(self._report, self._store, f"image {number}", *self._dialect.file_names(entry), size=size)
        path, (width, height) = found or ("", (0, 0))
        if self._dialect.verdict:
            self.verdicts[len(self.ids)] = self._dialect.verdict(entry)
        self.ids.append(number)
        self.paths.append(path)
        self.widths.append(width)
        self.heights.append(height)
        return True

    def finished(self) -> NDArray[np.int64]:
        """The ids, when all images are there; what only tells ids given twice is let go."""
        self._seen = None
        return np.asarray(self.ids)

    def tell_shared_files(self) -> None:
        """Count images that have the file of an earlier one: none of them says what all of it has."""
        used = np.flatnonzero(np.asarray(self.widths))
        hashes = np.fromiter((hash(self.paths[int(row)]) for row in used), np.int64, len(used))
        again = used[_repeated(hashes)]
        if len(again):
            where = f"image {self.ids[int(again[0])]}"
            self._report.count("image file given under several ids: all are kept", where, len(again))

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
