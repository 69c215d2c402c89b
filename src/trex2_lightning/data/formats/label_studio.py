"""Label Studio's tasks with rectangles, as its JSON export has them: https://labelstud.io/guide/task_format.

Of a task the first annotation that was not cancelled is read, or where nobody annotated it, the first prediction. The
vocabulary is what rectangles are called, in the order of their first occurrence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from trex2_lightning.data.annotations.cleaning import (
    NO_BOX,
    Annotated,
    annotate,
    as_id,
    as_truth,
    dicts,
    locate,
    numbers,
)
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.json_files import json_whole
from trex2_lightning.data.annotations.reading_report import Report, clean
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

OF_RECTANGLE = ("x", "y", "width", "height")  # of a rectangle, in percent of its image
Rectangle = tuple[str, dict[str, Any]]  # its category's name, "" of what is none, and what the file says of it


def read_label_studio(annotations: Path, store: ImageStore, report: Report) -> Iterator[Annotated]:
    """The images of an export in the format JSON.

    Raises:
        InputError: the file is no JSON list, or no task has an image.
    """
    tasks = [task for task in json_whole(annotations, report, list) if isinstance(task, dict)]
    tasks = [task for task in tasks if isinstance(task.get("data"), dict)]
    if not tasks:
        raise InputError(f"{annotations}: has no tasks with data; export from Label Studio as JSON, not as JSON-MIN")
    rectangles = [_rectangles(task, f"task {place}", report) for place, task in enumerate(tasks)]
    names = dict.fromkeys(name for listed in rectangles for name, _ in listed or () if name)
    if _are_shares(entry.get("value") for listed in rectangles for name, entry in listed or () if name):
        raise InputError(
            f"{annotations}: no box reaches beyond the first hundredth of its image, so they are shares of it; Label "
            "Studio has percent: multiply them by 100"
        )
    called = report.declare((number, name, "") for number, name in enumerate(names, 1))
    by_name = dict(zip(names, called.values(), strict=True))
    for place, (task, listed) in enumerate(zip(tasks, rectangles, strict=True)):
        where = f"task {place}"
        if listed is None:
            report.count("task that nobody annotated: left out", where)
            continue
        size = _size(task, listed)
        found = locate(report, store, where, *_file_names(task["data"].get("image")), size=size)
        if found and report.is_new(found[0], where):
            path, (width, height) = found
            named = [(by_name[name], entry) for name, entry in listed if name]
            yield annotate(
                report,
                where,
                path,
                (width, height),
                [_corners(entry.get("value"), width, height) for _, entry in named],
                [name for name, _ in named],
                judged=None if len(named) == len(listed) else [],
                image_id=place if (number := as_id(task.get("id"))) is None else number,
            )


FORMAT = Format(
    name="label_studio",
    help="Label Studio's JSON",
    data_sets="Label Studio",
    judges="all categories",
    kinds=("detection",),
    reader=read_label_studio,
    sources=(Argument("annotations", "JSON export, or predictions"),),
    direct=".json",
)


def _rectangles(task: dict[str, Any], where: str, report: Report) -> list[Rectangle] | None:
    """None: there is neither an annotation nor a prediction, so nobody knows what the image has."""
    annotations = [
        entry
        for entry in dicts(task.get("annotations") or [], report, where)
        if not as_truth(entry.get("was_cancelled", False))
    ]
    given = annotations or dicts(task.get("predictions") or [], report, where)
    if not given or not isinstance(given[0].get("result"), list):
        return None
    if len(annotations) > 1:
        report.count("image annotated by several people: the first is taken", where)
    found = []
    for entry in dicts(given[0]["result"], report, where):
        value = entry.get("value")
        labels = value.get("rectanglelabels") if isinstance(value, dict) else None
        name = clean(labels[0]) if isinstance(labels, list) and labels else ""
        kind = str(entry.get("type"))
        if not name and kind == "rectanglelabels":
            report.defect("box without a name: its image judges nothing", where)
        elif not name and not (kind.endswith("labels") or "original_width" in entry):
            continue  # about the image as a whole, or text
        elif not name:
            report.count("region that is no rectangle: its image judges nothing", where)
        found.append((name, entry))
    return found


def _size(task: dict[str, Any], listed: list[Rectangle]) -> tuple[Any, Any] | None:
    """Width and height as its boxes say, or as `trex2 label` writes them for an image that may have none."""
    places = [(entry, "original_width", "original_height") for _, entry in listed[:1]] + [
        (task["data"], "width", "height")
    ]
    return next(((entry[w], entry[h]) for entry, w, h in places if w in entry and h in entry), None)


def _file_names(image: Any) -> list[str]:
    """What the file may be called in its folder: as local files are served, its path, or its last part."""
    if not isinstance(image, str):
        return []
    try:
        address = urlsplit(image)
    except ValueError:
        return []
    path = unquote(address.path, errors="surrogateescape")  # bytes that are no UTF-8 are those of the file's name
    return [*parse_qs(address.query, errors="surrogateescape").get("d", []), path, path.rpartition("/")[2]]


def _are_shares(values: Iterable[Any]) -> bool:
    """Whether there are boxes, and all end where those in shares of the image would."""
    sides = [numbers([value.get(key) for key in OF_RECTANGLE]) for value in values if isinstance(value, dict)]
    ends = [max(x + width, y + height) for x, y, width, height in sides if math.isfinite(x + y + width + height)]
    return bool(ends) and max(ends) <= 1


def _corners(value: Any, width: int, height: int) -> tuple[float, ...]:
    """In pixels, of a box in percent; one that is turned, about its upper left corner, becomes the box around it."""
    try:
        x, y, w, h = numbers([value[key] for key in OF_RECTANGLE])
        angle = float(value.get("rotation", 0))
    except (KeyError, TypeError, ValueError, OverflowError):
        return NO_BOX
    x, y, w, h = x * width / 100, y * height / 100, w * width / 100, h * height / 100
    if not all(map(math.isfinite, (x, y, w, h, angle))):
        return NO_BOX
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    across, down = (
        (0.0, w * cosine, w * cosine - h * sine, -h * sine),
        (0.0, w * sine, w * sine + h * cosine, h * cosine),
    )
    return x + min(across), y + min(down), x + max(across), y + max(down)
