"""Open Images V7 (https://storage.googleapis.com/openimages/web/download_v7.html): boxes and verified labels as CSV.

An image judges the classes that it has boxes of, and those that people verified to be absent, with all their kinds.
Boxes have the most specific class that people could tell, so of what an image is known to have, the classes above are
not judged. Nor is a class that is there without boxes, or with a box around a group, whose members have none.
"""

from __future__ import annotations

import csv
import io
import json
import math
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from trex2_lightning.data.annotations.cleaning import Annotated, annotate, as_truth, locate, places
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.limits import lines_of
from trex2_lightning.data.annotations.reading_report import BROKEN, Report
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

BOX_COLUMNS = ("ImageID", "LabelName", "XMin", "YMin", "XMax", "YMax", "IsGroupOf")
LABEL_COLUMNS = ("ImageID", "LabelName", "Confidence")


def read_openimages(
    annotations: Path,
    classes: Path,
    store: ImageStore,
    report: Report,
    labels: Path | None = None,
    hierarchy: Path | None = None,
) -> Iterator[Annotated]:
    """The images that have boxes; a box around a group of objects is a crowd.

    Args:
        annotations: `oidv6-train-annotations-bbox.csv` or the like.
        classes: `oidv7-class-descriptions-boxable.csv`.
        labels: verified labels, `train-annotations-human-imagelabels-boxable.csv`; None: nothing is known to be absent.
        hierarchy: `bbox_labels_600_hierarchy.json`; None: no class is a kind of another.

    Raises:
        InputError: a file cannot be read, or lacks its columns.
    """
    numbers = _classes(classes, report)
    names = report.declare((number, name, "") for number, name in numbers.values())
    known = {label: number for label, (number, _) in numbers.items() if number in names}
    kinds = _Kinds(hierarchy, known, report)
    marked = _Marked(annotations, known, report)
    verified = _Verified(labels, marked.images, known, report)
    for image, chosen, told in zip(marked.images, marked.by_image(), verified.by_image(), strict=True):
        where = f"image {image}"
        found = locate(report, store, where, f"{image}.jpg", f"{image}.png")
        if not found:
            continue
        path, (width, height) = found
        different = {(marked.category[index], *marked.corners[4 * index : 4 * index + 4]): index for index in chosen}
        if len(different) < len(chosen):
            report.count("box given twice: used once", where, len(chosen) - len(different))
        has = [marked.category[index] for index in different.values()]
        group = [bool(marked.group[index]) for index in different.values()]
        grouped = {number for number, several in zip(has, group, strict=True) if several}
        yes, no = ({verified.category[index] for index in told if verified.there[index] == there} for there in (1, 0))
        yield annotate(
            report,
            where,
            path,
            (width, height),
            np.asarray([box for _, *box in different], np.float64) * [width, height, width, height],
            [names[number] for number in has],
            group,
            judged=[names[number] for number in kinds.judged(set(has), grouped, yes, no)],
        )


FORMAT = Format(
    name="openimages",
    help="Open Images V7",
    data_sets="Open Images V7",
    judges="those with boxes and those verified as absent, see below",
    kinds=("detection",),
    reader=read_openimages,
    sources=(
        Argument("annotations", "oidv6-train-annotations-bbox.csv or the like"),
        Argument("classes", "oidv7-class-descriptions-boxable.csv"),
    ),
    options=(
        Argument("labels", "verified labels, which say what is absent; default: nothing is known", advised=True),
        Argument("hierarchy", "bbox_labels_600_hierarchy.json; default: no class is another's kind", advised=True),
    ),
)


class _Kinds:
    """Which class is a kind of which; `Part`s are no kinds."""

    def __init__(self, path: Path | None, known: dict[str, int], report: Report) -> None:
        self._known = known
        self._above: dict[int, set[int]] = defaultdict(set)
        self._below: dict[int, set[int]] = defaultdict(set)
        if path is None:
            return
        text = report.read(path)
        try:
            self._descend(json.loads(text), frozenset())
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: not a hierarchy of classes; give bbox_labels_600_hierarchy.json") from error

    def judged(self, marked: set[int], grouped: set[int], yes: set[int], no: set[int]) -> list[int]:
        """Classes that are marked with all their objects, and those that are absent.

        Args:
            marked: classes that have boxes, of which `grouped` have one around several objects.
            yes: verified to be there.
            no: verified to be absent.
        """
        there = marked | yes
        unsure = (there - marked) | grouped | {parent for number in there for parent in self._above[number]}
        absent = no | {kind for number in no for kind in self._below[number]}
        return sorted((marked | (absent - there)) - unsure)

    def _descend(self, node: dict[str, Any], parents: frozenset[int]) -> None:
        number = self._known.get(node["LabelName"])
        if number is not None:
            self._above[number] |= parents
            for parent in parents:
                self._below[parent].add(number)
            parents |= {number}
        for kind in node.get("Subcategory", []):
            self._descend(kind, parents)


class _Marked:
    """The boxes of a file as columns; `images` are numbered as they first occur."""

    def __init__(self, path: Path, known: dict[str, int], report: Report) -> None:
        self.images: dict[str, int] = {}
        self.image = array("i")
        self.category = array("h")
        self.corners = array("f")
        self.group = array("b")
        for where, (image, label, *corners, group) in _rows(path, BOX_COLUMNS, report):
            if not image:
                report.defect("box without an image", where)
            elif label not in known:
                report.defect("box of an unknown category", where)
            else:
                self.image.append(self.images.setdefault(image, len(self.images)))
                self.category.append(known[label])
                self.corners.extend(map(_number, corners))
                if (several := as_truth(group)) is None:
                    report.count("box whose IsGroupOf is neither 0 nor 1: taken for 0", where)
                self.group.append(bool(several))
        if not self.images:
            raise InputError(f"{path}: has no boxes of these classes; give the file of boxes and its classes")

    def by_image(self) -> Iterator[list[int]]:
        return places(np.asarray(self.image), len(self.images))


class _Verified:
    """What people said of the images that have boxes: a class is there, or it is not."""

    def __init__(self, path: Path | None, images: dict[str, int], known: dict[str, int], report: Report) -> None:
        self.image = array("i")
        self.category = array("h")
        self.there = array("b")
        self._count = len(images)
        for where, (image, label, confidence) in _rows(path, LABEL_COLUMNS, report) if path else ():
            if label not in known:
                report.defect("verified label of an unknown category", where)
            elif _number(confidence) not in (0, 1):
                report.defect("verified label that is neither 0 nor 1", where)
            elif image not in images:
                report.count("verified label of an image without boxes", where)
            else:
                self.image.append(images[image])
                self.category.append(known[label])
                self.there.append(int(_number(confidence)))

    def by_image(self) -> Iterator[list[int]]:
        return places(np.asarray(self.image), self._count)


def _classes(path: Path, report: Report) -> dict[str, tuple[int, str]]:
    """Number and name by label (`/m/...`); the file has a head from V6 on."""
    found: dict[str, tuple[int, str]] = {}
    for number, row in _table(path, report, quoting=csv.QUOTE_MINIMAL):
        where = f"{path.name}, line {number}"
        if len(row) != 2 or "\ufffd" in row[1]:
            report.defect("class that is not a label and a name in UTF-8", where)
        elif not row[0].startswith("/"):
            if number > 1:
                report.defect("class that is not a label and a name in UTF-8", where)
        elif row[0] in found:
            report.defect("class given twice: the first is used", where)
        else:
            found[row[0]] = len(found) + 1, row[1]
    if not found:
        raise InputError(f"{path}: has no class; give the CSV of labels (/m/...) and names")
    return found


def _rows(path: Path, columns: Sequence[str], report: Report) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(where, values of the columns) for every row; one that is too short is counted."""
    table = _table(path, report, quoting=csv.QUOTE_NONE)  # a stray quote must not swallow the rows behind it
    _, head = next(table, (0, []))
    missing = [column for column in columns if column not in head]
    if missing:
        raise InputError(f"{path}: has no column {missing[0]}; give Open Images' own file")
    pick, longest = itemgetter(*map(head.index, columns)), len(head)
    for number, row in table:
        if len(row) == longest:
            yield f"{path.name}, line {number}", pick(row)
        elif row:
            report.defect("row that has not its columns", f"{path.name}, line {number}")


def _table(path: Path, report: Report, *, quoting: int) -> Iterator[tuple[int, list[str]]]:
    with report.open(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="")
        rows = csv.reader(lines_of(text, path), quoting=quoting)  # type: ignore[arg-type]
        try:
            for row in rows:
                yield rows.line_num, row
        except (csv.Error, *BROKEN) as error:
            raise InputError(f"{path}: cannot be read ({error}, line {rows.line_num}); fetch it again") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
