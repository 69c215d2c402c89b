from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.openimages import read_openimages
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Pictures = Callable[..., Path]
HEAD = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
CLASSES = "LabelName,DisplayName\n/m/a,Animal\n/m/d,Dog\n/m/c,Cat\n/m/r,Car\n/m/w,Wheel\n/m/b,Bat (Animal)\n"
HIERARCHY = {
    "LabelName": "/m/0bl9f",  # "Entity", which is no class
    "Subcategory": [
        {"LabelName": "/m/a", "Subcategory": [{"LabelName": "/m/d"}, {"LabelName": "/m/c"}, {"LabelName": "/m/b"}]},
        {"LabelName": "/m/r", "Part": [{"LabelName": "/m/w"}]},
    ],
}

# See test_every_format.py.
SHARES = "0.025,0.1,0.0667,0.2"
SAMPLE: Any = (
    {
        "boxes.csv": f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,/m/d,{SHARES},0\n",
        "names.csv": "LabelName,DisplayName\n/m/d,dog\n/m/c,cat\n",
        "labels.csv": "ImageID,Source,LabelName,Confidence\na,verification,/m/c,0\n",
        "kinds.json": {"LabelName": "/m/e", "Subcategory": [{"LabelName": "/m/d"}]},
    },
    ["boxes.csv", "names.csv"],
    ["--labels", "labels.csv", "--hierarchy", "kinds.json"],
    ["dog", "cat"],
)


def box(image: str = "a", label: str = "/m/d", corners: str = "0.25,0.5,0,1", group: int = 0) -> str:
    """`corners` in the file's order: left, right, top, bottom."""
    return f"{image},xclick,{label},1,{corners},0,1,{group},0,0"


def read(
    rows: list[Any],
    folder: Path,
    labels: list[str] | None = None,
    hierarchy: Any = HIERARCHY,
    classes: str | bytes = CLASSES,
    head: str = HEAD,
) -> tuple[list[Annotated], Report]:
    place, report = folder.parent, Report()
    lines = [row if isinstance(row, bytes) else row.encode() for row in (head, *rows)]
    (place / "boxes.csv").write_bytes(b"\n".join(lines) + b"\n")
    (place / "classes.csv").write_bytes(classes if isinstance(classes, bytes) else classes.encode())
    (place / "hierarchy.json").write_text(json.dumps(hierarchy))
    (place / "labels.csv").write_text("\n".join(["ImageID,Source,LabelName,Confidence", *(labels or [])]))
    told = place / "labels.csv" if labels is not None else None
    reader = read_openimages(
        place / "boxes.csv",
        place / "classes.csv",
        ImageStore([folder]),
        report,
        told,
        place / "hierarchy.json" if hierarchy else None,
    )
    return list(reader), report


def test_corners_are_shares_of_an_image_that_is_asked_for_its_size(pictures: Pictures) -> None:
    rows = [box(), box("b", "/m/b"), box(corners="0,0.1,0.2,0.3", group=1)]
    (first, second), report = read(rows, pictures("a.jpg", "b.png"))
    assert (first.width, first.height) == (40, 30)
    assert first.boxes.tolist() == [[10, 0, 20, 30], pytest.approx([0, 6, 4, 9])]
    assert (first.names, first.crowd.tolist()) == (["Dog", "Dog"], [False, True])
    assert second.names == ["Bat (Animal)"]
    assert report.names == ["Animal", "Dog", "Cat", "Car", "Wheel", "Bat (Animal)"]
    assert report.counts == {}


@pytest.mark.parametrize("classes", [CLASSES.replace("LabelName,DisplayName", "id,name"), CLASSES.split("\n", 1)[1]])
def test_classes_of_older_versions(pictures: Pictures, classes: str) -> None:
    [image], report = read([box()], pictures("a.jpg"), classes=classes)
    assert (image.names, len(report.names), report.counts) == (["Dog"], 6, {})


def test_what_is_verified_to_be_absent_is_judged_with_all_its_kinds(pictures: Pictures) -> None:
    [image], report = read([box(label="/m/w")], pictures("a.jpg"), ["a,verification,/m/a,0", "a,verification,/m/r,0"])
    assert image.judged == ["Animal", "Dog", "Cat", "Car", "Wheel", "Bat (Animal)"]  # a wheel is a part, no kind, of it
    assert report.counts == {}


def test_nothing_is_judged_of_which_boxes_may_be_missing(pictures: Pictures) -> None:
    rows = [box(label="/m/d"), box("b", "/m/a"), box("b", "/m/d"), box("c", "/m/d", group=1), box("c", "/m/r")]
    labels = [
        "a,verification,/m/c,1",  # there, without a box
        "a,verification,/m/r,0",
        "b,verification,/m/c,0",
        "c,verification,/m/a,0",  # contradicts the box of a dog
    ]
    (first, second, third), _ = read(rows, pictures("a.jpg", "b.jpg", "c.jpg"), labels)
    assert first.judged == ["Dog", "Car"]  # that it has an animal is known, but no box says so
    assert second.judged == ["Dog", "Cat"]  # its dog is an animal without a box of that name
    assert third.judged == ["Cat", "Car", "Bat (Animal)"]  # the dogs of the group have no boxes of their own


def test_without_labels_and_hierarchy_an_image_judges_what_it_has(pictures: Pictures) -> None:
    [image], _ = read([box(), box(label="/m/a")], pictures("a.jpg"), hierarchy=None)
    assert image.judged == ["Animal", "Dog"]


DEFECTS: dict[str, Any] = {
    "image file missing": box("gone"),
    "box without an image": box(""),
    "box of an unknown category": box(label="/m/x"),
    "box given twice: used once": box(),
    "box outside its image": box(corners="1.1,1.2,0,1"),
    "box that reached out of its image: clipped": box(corners="0.5,1.2,0,1"),
    "box without area": box(corners="0.5,0.5,0,1"),
    "box that is not four finite numbers": box(corners="0.5,x,0,1"),
    "row that has not its columns": box()[:-9],
}


@pytest.mark.parametrize("reason", DEFECTS)
def test_every_defect_is_counted_and_takes_nothing_else(pictures: Pictures, reason: str) -> None:
    images, report = read([box(), DEFECTS[reason], box("b", "/m/c")], pictures("a.jpg", "b.jpg"))
    assert report.counts == {reason: 1}
    assert images[0].boxes[0].tolist() == [10, 0, 20, 30]
    assert images[-1].names == ["Cat"]


def test_bytes_that_are_not_utf_8_and_a_stray_quote_take_their_own_row_alone(pictures: Pictures) -> None:
    rows = [box("\xe9").encode("latin-1"), f'"{box()}', box()]
    images, report = read(rows, pictures("a.jpg"))
    assert [image.names for image in images] == [["Dog"]]
    assert report.counts == {"image file missing": 2}


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("gone,verification,/m/d,0", "verified label of an image without boxes"),
        ("a,verification,/m/x,0", "verified label of an unknown category"),
        ("a,verification,/m/c,0.5", "verified label that is neither 0 nor 1"),
        ("a,verification", "row that has not its columns"),
    ],
)
def test_defects_of_verified_labels(pictures: Pictures, label: str, reason: str) -> None:
    [image], report = read([box()], pictures("a.jpg"), [label, "a,verification,/m/r,0"])
    assert report.counts == {reason: 1}
    assert image.judged == ["Dog", "Car"]


def test_defects_of_classes(pictures: Pictures) -> None:
    classes = CLASSES.encode() + b"/m/d,Hound\n/m/x\n/m/y,\xe9\n/m/z,dog\n"
    _, report = read([box()], pictures("a.jpg"), classes=classes)
    assert report.counts == {
        "class given twice: the first is used": 1,
        "class that is not a label and a name in UTF-8": 2,
        "category name given twice: made one": 1,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "ImageID,LabelName"}, "boxes.csv: has no column XMin; give Open Images' own file"),
        ({"head": "<html>"}, "boxes.csv: has no column ImageID"),
        ({"rows": []}, "boxes.csv: has no boxes of these classes"),
        ({"classes": ""}, "classes.csv: has no class; give the CSV"),
        ({"hierarchy": [1]}, "hierarchy.json: not a hierarchy of classes; give bbox_labels_600_hierarchy.json"),
        ({"hierarchy": {"LabelName": "/m/a", "Subcategory": [3]}}, "not a hierarchy"),
        ({"rows": [box("x" * 200_000)]}, r"boxes.csv: cannot be read \(field larger than field limit"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(pictures: Pictures, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(**({"rows": [box()], "folder": pictures("a.jpg")} | changes))
    assert "\n" not in str(caught.value)
