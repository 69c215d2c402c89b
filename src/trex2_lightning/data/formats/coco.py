"""COCO's format, of which many are dialects, in one pass over a file of any size: https://cocodataset.org/#format-data.

Images are given in the file's order. A category may have a `group`, for which AP is reported apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trex2_lightning.data.annotations.cleaning import Annotated, annotate, as_id
from trex2_lightning.data.annotations.coco_columns import BoxColumns, Dialect, Entry, ImageColumns
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.json_files import json_lists
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

LISTS = ("images", "annotations", "categories")
COCO = Dialect()


def read_coco(annotations: Path, store: ImageStore, report: Report) -> Iterator[Annotated]:
    """The images of a COCO file, or of a folder that has one as Roboflow names it.

    Raises:
        InputError: see `read_dialect`.
    """
    file = annotations / "_annotations.coco.json" if annotations.is_dir() else annotations
    return read_dialect(file, store, report, COCO)


FORMAT = Format(
    name="coco",
    help="COCO's format",
    data_sets="COCO, Roboflow, ODinW, your own",
    judges="all categories",
    kinds=("detection", "grounding", "nameless"),
    reader=read_coco,
    sources=(Argument("annotations", "JSON file, or a folder of Roboflow or ODinW with _annotations.coco.json"),),
    direct=".json",
)


def read_dialect(annotations: Path, store: ImageStore, report: Report, dialect: Dialect) -> Iterator[Annotated]:
    """The images of a file in a dialect of COCO's format.

    Raises:
        InputError: the file is not JSON, or lacks images, annotations or categories.
    """
    return read_entries(json_lists(annotations, report, LISTS), annotations, store, report, dialect)


def read_entries(
    listed: Iterable[tuple[str, Any]], annotations: Path, store: ImageStore, report: Report, dialect: Dialect
) -> Iterator[Annotated]:
    """The images of what was read: the entries of the three lists, each with its list's name.

    Raises:
        InputError: images or categories are missing, and what the entries raise.
    """
    images, boxes = ImageColumns(store, report, dialect), BoxColumns(report)
    categories: list[Entry] = []
    for key, entry in listed:
        if key == "images":
            images.add(entry)
        elif key == "annotations":
            boxes.add(entry | {"category_id": 1} if dialect.only and isinstance(entry, dict) else entry)
        elif key == "categories" and not dialect.only:
            number = as_id(entry.get("id")) if isinstance(entry, dict) else None
            if number is not None:
                categories.append(entry | {"id": number})
            else:
                report.defect("category without an integer id", f"category {len(categories)} of the list")
    images.tell_shared_files()
    if dialect.only:
        categories = [{"id": 1, "name": dialect.only}]
    for name, entries in {"images": len(images.ids), "categories": len(categories)}.items():
        if not entries:
            raise InputError(f"{annotations}: its list of {name} is empty; give an annotation file that has some")
    categories = [entry for entry in categories if not _is_heading(entry, categories, boxes, report)]
    declared = ((entry["id"], dialect.name(entry), dialect.group(entry)) for entry in categories)
    names = report.declare(declared, as_given=dialect.names_as_given)

    called = [names.get(category_id, "") for category_id in boxes.category_ids]
    for row, chosen in enumerate(boxes.by_image(images.finished(), names)):
        if not images.paths[row]:
            continue
        where = f"image {images.ids[row]}"
        labels = [called[boxes.category[index]] for index in chosen]
        yield annotate(
            report,
            where,
            images.paths[row],
            (images.widths[row], images.heights[row]),
            [boxes.corners[4 * index : 4 * index + 4] for index in chosen],
            labels,
            [bool(boxes.crowd[index]) for index in chosen],
            [boxes.area[index] for index in chosen],
            _judged(images.verdicts.get(row), labels, names, where, report),
            images.ids[row],
        )


def _is_heading(entry: Entry, categories: list[Entry], boxes: BoxColumns, report: Report) -> bool:
    """Roboflow's exports have a category without boxes which only names the others' common group."""
    heading = entry.get("supercategory") == "none" and entry["id"] not in boxes.category_ids
    heading = heading and any(other.get("supercategory") == entry.get("name") for other in categories)
    if heading:
        report.count("category that only heads the others (Roboflow)", f"category {entry['id']}, {entry.get('name')}")
    return heading


def _judged(
    verdict: tuple[Any, Any] | None, labels: Sequence[str], names: dict[int, str], where: str, report: Report
) -> list[str] | None:
    if verdict is None:
        return None
    if not all(isinstance(ids, list) for ids in verdict):
        report.defect("image that does not say which categories it judges: taken to judge none", where)
        return []
    known = [[names[number] for number in map(as_id, ids) if number in names] for ids in verdict]
    unknown = sum(map(len, verdict)) - sum(map(len, known))
    if unknown:
        report.defect("judged category that is unknown", where, unknown)
    absent, partial = known
    return list(dict.fromkeys(name for name in [*labels, *absent] if name not in partial))
