"""CrowdHuman (https://www.crowdhuman.org/download.html): `.odgt`, one JSON object an image and line.

    {"ID": "273271,c9db000d5146c15", "gtboxes": [{"tag": "person", "fbox": [x, y, w, h], "vbox": ..., "hbox": ...,
        "extra": {"ignore": 0}, "head_attr": {"ignore": 0}}]}

What is to be ignored, and every `mask` (several people, a reflection), is a crowd, which evaluation ignores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trex2_lightning.data.annotations.cleaning import Annotated, annotate, as_truth, dicts, locate, xywh
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.json_files import json_lines
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.images.archives import ImageStore


class Part(NamedTuple):
    """Which of a person's boxes is taken."""

    box: str
    name: str
    attributes: str  # that say whether to ignore it


PARTS = {
    "visible": Part("vbox", "person", "extra"),
    "full": Part("fbox", "person", "extra"),  # with what is hidden
    "head": Part("hbox", "head", "head_attr"),
}


def read_crowdhuman(annotations: Path, store: ImageStore, report: Report, part: str = "visible") -> Iterator[Annotated]:
    """The images of a file; `part` is one of `PARTS`.

    Raises:
        InputError: the file cannot be read.
    """
    chosen = PARTS[part]
    report.declare([(1, chosen.name, "")])
    for number, (where, line) in enumerate(json_lines(annotations, report), 1):
        name = line.get("ID")
        found = locate(report, store, where, f"{name}.jpg" if isinstance(name, str) and name else None)
        if not found or not report.is_new(found[0], where):
            continue
        if not isinstance(line.get("gtboxes"), list):
            report.defect("image without its list of boxes", where)
            continue
        people = list(_people(line["gtboxes"], chosen, where, report))
        names, ignored = [chosen.name] * len(people), [ignore for _, ignore in people]
        yield annotate(report, where, *found, [box for box, _ in people], names, ignored, image_id=number)


FORMAT = Format(
    name="crowdhuman",
    help="CrowdHuman",
    data_sets="CrowdHuman",
    judges="all persons",
    kinds=("detection",),
    reader=read_crowdhuman,
    sources=(Argument("annotations", "annotation_train.odgt"),),
    options=(Argument("part", "of a person; default: what is visible", str, "visible", tuple(PARTS)),),
)


def _people(value: Any, part: Part, where: str, report: Report) -> Iterator[tuple[tuple[float, ...], bool]]:
    """(box, ignored) of every entry."""
    for entry in dicts(value, report, where):
        mask = entry.get("tag") == "mask"
        if not mask and entry.get("tag") != "person":
            report.defect("box of an unknown category", where)
            continue
        attributes = entry.get(part.attributes)
        ignored = as_truth(attributes.get("ignore", 0)) if isinstance(attributes, dict) else None
        if ignored is None and attributes is not None:
            report.defect("box whose ignore is neither 0 nor 1: taken for 0", where)
        yield xywh(entry.get("fbox" if mask else part.box)), mask or bool(ignored)
