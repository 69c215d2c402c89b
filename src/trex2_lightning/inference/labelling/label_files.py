"""Labels as files for annotation tools and for training, each of which `data/formats` reads again.

They replace those of an earlier call as a whole, when all of them are written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.parse import quote
from xml.etree import ElementTree

import yaml  # type: ignore[import-untyped]

from trex2_lightning.inference.labelling.journal import Journal
from trex2_lightning.inference.labelling.rows import LabelRow
from trex2_lightning.inference.labelling.sources import Source


class Labels(NamedTuple):
    """What was found in the pictures of a source."""

    source: Source
    categories: tuple[str, ...]
    journal: Journal

    def rows(self) -> Iterator[LabelRow]:
        """In the source's order, without pictures that were skipped."""
        return (row for row in self.journal.rows(self.source.names) if not row.skipped)


def write_coco(labels: Labels, folder: Path) -> Path:
    """`labels.json` in COCO's format, with a `score` for each box; numbers count from 1."""

    def write(file: TextIO) -> None:
        file.write('{"images": ')
        _write_list(file, _coco_images(labels.rows()))
        file.write(', "annotations": ')
        _write_list(file, _coco_annotations(labels.rows(), labels.categories))
        file.write(f', "categories": {json.dumps(_coco_categories(labels.categories))}}}\n')

    return _written(folder / "labels.json", write)


def coco_content(rows: Sequence[LabelRow], categories: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The same, of few pictures."""
    return {
        "images": list(_coco_images(rows)),
        "annotations": list(_coco_annotations(rows, categories)),
        "categories": _coco_categories(categories),
    }


def write_label_studio(labels: Labels, folder: Path) -> Path:
    """`labels.json`, tasks with predictions to import, and `label_config.xml`, the project's labelling interface.

    Pictures are named as Label Studio serves local files, where its document root is the source's folder.
    """
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    group = ElementTree.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in labels.categories:
        ElementTree.SubElement(group, "Label", value=name)
    _written(folder / "label_config.xml", lambda file: file.write(ElementTree.tostring(view, "unicode") + "\n"))
    return _written(folder / "labels.json", lambda file: _write_list(file, map(_task, labels.rows())))


def write_voc(labels: Labels, folder: Path) -> Path:
    """`Annotations`, an XML file for each picture, whose `filename` is relative to the source's folder."""

    def write(target: Path) -> None:
        names = _Stems()
        for row in labels.rows():
            tree = ElementTree.Element("annotation")
            _add(tree, filename=row.name if _is_unicode(row.name) else "")  # then it is found by the file's stem
            _add(ElementTree.SubElement(tree, "size"), width=row.width, height=row.height, depth=3)
            for found in row.found:
                item = ElementTree.SubElement(tree, "object")
                left, top, right, bottom = found.box
                _add(item, name=found.name, difficult=0)  # pixels count from 1, and the last is part of the box
                corners = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
                _add(ElementTree.SubElement(item, "bndbox"), **{side: round(at, 2) for side, at in corners.items()})
            ElementTree.indent(tree)
            file = target / f"{names.of(row.name.replace('/', '__')).stem}.xml"
            file.write_bytes(ElementTree.tostring(tree, "utf-8"))

    return _written_folder(folder / "Annotations", write)


def write_yolo(labels: Labels, folder: Path) -> Path:
    """`yolo`: `data.yaml` with the one split `train`, `labels`, and `images` with links to the pictures."""
    numbers = {name: number for number, name in enumerate(labels.categories)}

    def write(target: Path) -> None:
        names = _Stems()
        for row in labels.rows():
            name = names.of(row.name)
            image = target / "images" / name
            head, _, tail = image.as_posix().rpartition("/images/")  # the last one, as readers take it
            text = Path(head, "labels", tail).with_suffix(".txt")
            for file in (image, text):
                file.parent.mkdir(parents=True, exist_ok=True)
            _link(image, (labels.source.root / row.name).absolute())
            lines = (f"{numbers[name]} {_shares(box, row)}\n" for name, _, box in row.found)
            text.write_text("".join(lines), encoding="utf-8")
        content = {"path": ".", "train": "images", "names": dict(enumerate(labels.categories))}
        (target / "data.yaml").write_text(
            yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )

    return _written_folder(folder / "yolo", write) / "data.yaml"


# By the name that the format has in `data/formats`.
WRITERS: dict[str, Callable[[Labels, Path], Path]] = {
    "coco": write_coco,
    "label_studio": write_label_studio,
    "voc": write_voc,
    "yolo": write_yolo,
}

TARGETS = ("labels.json", "label_config.xml", "Annotations", "yolo")  # what they write, in the folder


class _Stems:
    """Names of files that stay different without their suffixes, as labels lie beside pictures by their stems."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, name: str) -> Path:
        """The name, or where its stem is taken, with its suffix twice: of a.jpg and a.png the second is a.png.png."""
        path = Path(name)
        while str(path.with_suffix("")) in self._taken:
            path = path.with_name(path.name + path.suffix)
        self._taken.add(str(path.with_suffix("")))
        return path


def _coco_images(rows: Iterable[LabelRow]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        yield {"id": number, "file_name": row.name, "width": row.width, "height": row.height}


def _coco_annotations(rows: Iterable[LabelRow], categories: Sequence[str]) -> Iterator[dict[str, Any]]:
    numbers = {name: number for number, name in enumerate(categories, 1)}
    boxes = ((image, found) for image, row in enumerate(rows, 1) for found in row.found)
    for number, (image, (name, score, (left, top, right, bottom))) in enumerate(boxes, 1):
        width, height = round(right - left, 2), round(bottom - top, 2)
        box = {"bbox": [left, top, width, height], "area": round(width * height, 2), "iscrowd": 0, "score": score}
        yield {"id": number, "image_id": image, "category_id": numbers[name], **box}


def _coco_categories(categories: Sequence[str]) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in enumerate(categories, 1)]


def _task(row: LabelRow) -> dict[str, Any]:
    results = []
    for number, (name, score, (left, top, right, bottom)) in enumerate(row.found):
        percent = {"x": left / row.width, "y": top / row.height}
        percent |= {"width": (right - left) / row.width, "height": (bottom - top) / row.height}
        value = {side: round(100 * share, 4) for side, share in percent.items()}
        results.append(
            {
                "id": f"{number}",
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": row.width,
                "original_height": row.height,
                "value": value | {"rotation": 0, "rectanglelabels": [name]},
                "score": score,
            }
        )
    data = {"image": f"/data/local-files/?d={quote(os.fsencode(row.name))}", "width": row.width, "height": row.height}
    # The score by which the tool sorts pictures: of the least certain box.
    scores = {"score": min(found.score for found in row.found)} if row.found else {}
    return {"data": data, "predictions": [{"model_version": "trex2_lightning", "result": results, **scores}]}


def _is_unicode(name: str) -> bool:
    """Not where it has bytes of a file's name that are no UTF-8, which no XML can hold."""
    return name.encode(errors="ignore").decode() == name


def _shares(box: tuple[float, float, float, float], row: LabelRow) -> str:
    left, top, right, bottom = box[0] / row.width, box[1] / row.height, box[2] / row.width, box[3] / row.height
    return " ".join(f"{share:.6f}" for share in ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top))


def _link(place: Path, file: Path) -> None:
    try:
        place.symlink_to(file)
    except OSError:  # Windows, and some file systems, have no links for everybody
        shutil.copyfile(file, place)


def _add(element: ElementTree.Element, **texts: object) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(element, name).text = str(text)


def _write_list(file: TextIO, entries: Iterator[dict[str, Any]]) -> None:
    file.write("[")
    for place, entry in enumerate(entries):
        file.write(("," if place else "") + "\n" + json.dumps(entry))
    file.write("]")


def _written(target: Path, write: Callable[[TextIO], object]) -> Path:
    part = target.with_name(f"{target.name}.part")
    with part.open("w", encoding="utf-8") as file:
        write(file)
    return part.replace(target)


def _written_folder(target: Path, write: Callable[[Path], None]) -> Path:
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write(part)
    shutil.rmtree(target, ignore_errors=True)
    return part.replace(target)
