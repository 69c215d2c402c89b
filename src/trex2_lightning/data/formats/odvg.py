"""ODVG, the JSON Lines of Open-GroundingDino and MM-Grounding-DINO: one image a line.

    {"filename": "a.jpg", "height": 480, "width": 640, "detection": {"instances": [{"bbox": [x1, y1, x2, y2], "label": 0, "category": "cat"}]}}
    {"filename": "b.jpg", "height": 480, "width": 640, "grounding": {"caption": "a man and a dog", "regions": [
        {"bbox": [[x1, y1, x2, y2], ...] or one of them, "phrase": "a man" or several, "tokens_positive": [[0, 5]]}]}}

A line's detection judges the whole label map, and without one what it has; a caption judges its own phrases alone.
"""  # noqa: E501

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trex2_lightning.data.annotations.cleaning import (
    Annotated,
    annotate,
    as_id,
    count_otherwise,
    dicts,
    locate,
    numbers,
)
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.json_files import json_lines
from trex2_lightning.data.annotations.reading_report import Report, clean
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Corners = tuple[float, ...]


def read_odvg(
    annotations: Path, store: ImageStore, report: Report, label_map: Path | None = None
) -> Iterator[Annotated]:
    """The images of an ODVG file.

    Args:
        label_map: JSON of label to name, `{"0": "person", ...}`; without it every instance names its `category`.

    Raises:
        InputError: a file cannot be read, or its labels count from another number than the map's.
    """
    labels = _Labels(report.declare(_label_map(label_map, report))) if label_map else None
    for place, (where, line) in enumerate(json_lines(annotations, report)):
        size = (line["width"], line["height"]) if "width" in line and "height" in line else None
        found = locate(report, store, where, line.get("filename"), size=size)
        if not found:
            continue
        grounding = line.get("grounding")
        if isinstance(grounding, dict):
            pairs = list(_regions(grounding, where, report))
        elif isinstance(line.get("detection"), dict):
            if not report.is_new(found[0], where):
                continue
            pairs = list(_instances(line["detection"], labels, where, report))
        else:
            report.defect("line without 'detection' and 'grounding'", where)
            continue
        names = [name for _, name in pairs]
        judged = list(dict.fromkeys(names)) if labels is None or isinstance(grounding, dict) else None
        yield annotate(report, where, *found, [box for box, _ in pairs], names, judged=judged, image_id=place)
    if labels and labels.count_otherwise:
        raise InputError(
            f"{annotations}: its labels go from {labels.used[0]} to {labels.used[1]}, those of {label_map} from "
            f"{min(labels.names)} to {max(labels.names)}, so each would have its neighbour's name; make them count "
            "alike"
        )


FORMAT = Format(
    name="odvg",
    help="ODVG's JSON Lines, detection or grounding",
    data_sets="ODVG, detection or grounding",
    judges="the label map, without one what it has; its caption's phrases",
    kinds=("detection", "grounding"),
    reader=read_odvg,
    sources=(Argument("annotations", "file with a JSON object for every image"),),
    options=(Argument("label_map", "JSON of label to name; default: the category that an instance names"),),
)


class _Labels:
    """A label map, and whether the file's labels mean what it says."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names
        self._alone: set[int] = set()  # labels of boxes that nothing else names
        self._agree = self._differ = 0  # boxes whose category is the label's name, and those whose is another
        self._used: set[int] = set()

    @property
    def used(self) -> tuple[int, int]:
        """The least and the greatest."""
        return min(self._used), max(self._used)

    @property
    def count_otherwise(self) -> bool:
        """Whether labels that stand alone count from another number, or most others have another category's name."""
        return bool(self._alone) and (count_otherwise(self._alone, self.names) or self._differ > self._agree)

    def name_of(self, instance: dict[str, Any], category: str, where: str, report: Report) -> str:
        """That of the label; but the category that an instance names, where the map has it under another label."""
        label = as_id(instance.get("label"))
        name = ""
        if label is not None:
            name = self.names.get(label, "")
            self._used.add(label)
            self._alone |= set() if category else {label}
        if not category or _plain_words(category) == _plain_words(name):
            self._agree += bool(category)
            return name
        same = next((other for other in self.names.values() if _plain_words(other) == _plain_words(category)), "")
        self._differ += bool(same)
        if same or name:
            taken = "the category" if same else "the label's name"
            report.count(f"box whose label and category are different names: {taken} is taken", where)
        return same or name


def _instances(
    detection: dict[str, Any], labels: _Labels | None, where: str, report: Report
) -> Iterator[tuple[Corners, str]]:
    for instance in dicts(detection.get("instances"), report, where):
        name = clean(instance.get("category"))
        if labels is not None:
            name = labels.name_of(instance, name, where, report)
        if name:
            yield numbers(instance.get("bbox")), name
        else:
            report.defect("box of an unknown category", where)


def _regions(grounding: dict[str, Any], where: str, report: Report) -> Iterator[tuple[Corners, str]]:
    for region in dicts(grounding.get("regions"), report, where):
        given = region.get("phrase")
        phrases = list(dict.fromkeys(filter(None, map(clean, given if isinstance(given, list) else [given]))))
        given = region.get("bbox")
        boxes = given if isinstance(given, list) and given and isinstance(given[0], list) else [given]
        if not phrases:
            report.defect("box without a phrase", where)
        elif len(phrases) > 1:
            report.count("region of several phrases: its boxes are listed under each", where)
        for box in boxes:
            yield from ((numbers(box), phrase) for phrase in phrases)


def _plain_words(name: str) -> str:
    """Without what spellings of a name differ in."""
    return " ".join(re.split(r"[\W_]+", name.casefold())).strip()


def _label_map(path: Path, report: Report) -> list[tuple[int, Any, str]]:
    text = report.read(path)
    try:
        return [(int(label), name, "") for label, name in json.loads(text).items()]
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f'{path}: not a label map; give JSON like {{"0": "person", "1": "dog"}}') from error
