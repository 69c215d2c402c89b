from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.crowdhuman import read_crowdhuman
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Pictures = Callable[..., Path]
NAME = "273271,c9db000d5146c15"

# See test_every_format.py.
PERSON = {"tag": "person", "vbox": [1, 2, 3, 4], "fbox": [9, 2, 3, 4], "hbox": [1, 2, 3, 1], "extra": {"ignore": 0}}
SAMPLE: Any = ({"a.odgt": {"ID": "a", "gtboxes": [PERSON]}}, ["a.odgt"], ["--part", "visible"], ["person"])


def person(**changes: Any) -> dict[str, Any]:
    boxes = {"fbox": [-5, 2, 20, 20], "vbox": [2, 2, 10, 12], "hbox": [3, 2, 4, 5]}
    flags = {"extra": {"box_id": 0, "occ": 1}, "head_attr": {"ignore": 0, "occ": 0, "unsure": 0}}
    return {"tag": "person", **boxes, **flags} | changes


MASK = person(tag="mask", fbox=[20, 5, 9, 9], vbox=[0, 0, 0, 0], hbox=[0, 0, 0, 0], extra={"ignore": 1}, head_attr={})


def line(*people: Any, name: Any = NAME) -> dict[str, Any]:
    return {"ID": name, "gtboxes": list(people)}


def read(lines: list[Any], folder: Path, part: str = "visible") -> tuple[list[Annotated], Report]:
    path, report = folder.parent / "a.odgt", Report()
    path.write_bytes(b"\n".join(some if isinstance(some, bytes) else json.dumps(some).encode() for some in lines))
    return list(read_crowdhuman(path, ImageStore([folder]), report, part)), report


@pytest.mark.parametrize(
    ("part", "name", "box"),
    [("visible", "person", [2, 2, 12, 14]), ("full", "person", [0, 2, 15, 22]), ("head", "head", [3, 2, 7, 7])],
)
def test_one_part_of_every_person_and_masks_are_ignored(
    pictures: Pictures, part: str, name: str, box: list[int]
) -> None:
    [image], report = read([line(person(), MASK)], pictures(f"{NAME}.jpg"), part)
    assert image.boxes.tolist() == [box, [20, 5, 29, 14]]
    assert (image.names, image.crowd.tolist()) == ([name, name], [False, True])
    assert (image.width, image.height, image.judged, report.names) == (40, 30, None, [name])
    assert report.counts == ({"box that reached out of its image: clipped": 1} if part == "full" else {})


@pytest.mark.parametrize(("part", "ignored"), [("visible", [True, False]), ("head", [False, True])])
def test_persons_and_heads_are_ignored_apart(pictures: Pictures, part: str, ignored: list[bool]) -> None:
    people = person(extra={"ignore": 1}), person(head_attr={"ignore": 1})
    [image], _ = read([line(*people)], pictures(f"{NAME}.jpg"), part)
    assert image.crowd.tolist() == ignored


DEFECTS: dict[str, Any] = {
    "image file missing": line(name="gone"),
    "image without a file name": line(name=3),
    "image given twice: the first is used": line(person()),
    "image that cannot be read": line(name="broken"),
    "line that is not JSON": b'{"ID": "a", ',
    "line that is not UTF-8": json.dumps(line(name="\xe9"), ensure_ascii=False).encode("latin-1"),
    "line that is not a JSON object": [1],
    "box of an unknown category": line(person(tag="car"), name="b"),
    "box outside its image": line(person(vbox=[50, 2, 5, 5]), name="b"),
    "box that reached out of its image: clipped": line(person(vbox=[30, 2, 20, 5]), name="b"),
    "box without area": line(person(vbox=[3, 2, 0, 5]), name="b"),
    "box that is not four finite numbers": line(person(vbox=None), name="b"),
    "box that is not a JSON object": line(7, name="b"),
    "image without its list of boxes": {"ID": "b"},
}


@pytest.mark.parametrize("reason", DEFECTS)
def test_every_defect_is_counted_and_takes_nothing_else(pictures: Pictures, reason: str) -> None:
    folder = pictures(f"{NAME}.jpg", "b.jpg")
    (folder / "broken.jpg").write_text("no image")
    images, report = read([line(person()), DEFECTS[reason]], folder)
    assert report.counts == {reason: 1}
    assert "line 2" in report.examples[reason]
    assert images[0].boxes.tolist() == [[2, 2, 12, 14]]


def test_a_damaged_gzip_file_is_refused(pictures: Pictures) -> None:
    path = pictures("b.jpg").parent / "b.odgt.gz"
    whole = gzip.compress(json.dumps(line(person(), name="b")).encode() * 50)
    path.write_bytes(whole[:30] + bytes(40) + whole[70:])
    with pytest.raises(InputError, match=r"b\.odgt\.gz: "):
        list(read_crowdhuman(path, ImageStore([path.parent]), Report()))


def test_a_file_without_one_good_line_is_refused(pictures: Pictures) -> None:
    with pytest.raises(InputError, match="no line is a JSON object; give"):
        read([b"<html>"], pictures("a.jpg"))
