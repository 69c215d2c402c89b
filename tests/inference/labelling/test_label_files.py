"""What is written is what this project's own readers read again, whatever the format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats import every_format
from trex2_lightning.data.opening import read_records
from trex2_lightning.inference.labelling.journal import ROOT, Journal
from trex2_lightning.inference.labelling.label_files import WRITERS, Labels
from trex2_lightning.inference.labelling.rows import LabelRow
from trex2_lightning.inference.labelling.sources import Shard, find_pictures
from trex2_lightning.structures import Detection

# On which formats stumble: folders, one of YOLO's own name, a stem twice, blanks, signs of XML and of addresses, bytes
# that are no UTF-8.
NAMES = [
    "a.jpg",
    "a.png",
    "images/b c.jpg",
    "sub/a.jpg",
    "sub/d&e?=%20.jpg",
    os.fsdecode(b"gr\xf6\xdfe.jpg"),
    "empty.jpg",
]
SIZES = {name: (40 + place, 30 + 2 * place) for place, name in enumerate(NAMES)}
CATEGORIES = ("cell & co", "dust", "never found")


def boxes(place: int) -> tuple[Detection, ...]:
    first = Detection("dust", 0.75, (0.0, 1.25, 10.5 + place, 20.0))
    return (first, Detection("cell & co", 0.5, (3.0, 2.0, 40.0 + place, 30.0)))


ROWS = [LabelRow(name, *SIZES[name], () if name == "empty.jpg" else boxes(place)) for place, name in enumerate(NAMES)]


@pytest.fixture
def labels(tmp_path: Path, pictures: Callable[..., Path]) -> Iterator[Labels]:
    root = pictures(*NAMES, "torn.jpg")
    for name, size in SIZES.items():
        Image.new("RGB", size).save(root / name)
    with Journal(tmp_path / "out", {ROOT: str(root)}, Shard()) as journal:
        journal.add([*ROWS, LabelRow("torn.jpg", skipped="cannot be read")])
        yield Labels(find_pictures(str(root)), CATEGORIES, journal)


@pytest.mark.parametrize("name", WRITERS)
def test_a_reader_finds_the_same_boxes(tmp_path: Path, labels: Labels, name: str) -> None:
    form, report = every_format()[name], Report()
    file = WRITERS[name](labels, tmp_path / "out")
    values = {argument.name: argument.default for argument in form.options} | {form.sources[0].name: file}
    read = {image.path: image for image in form.read(values | {"images": [labels.source.root]}, report)}
    assert len(read) == len(ROWS)
    for row in ROWS:
        image = read[str((labels.source.root / row.name).resolve())]
        assert (image.width, image.height, image.judged) == (row.width, row.height, None)
        found = sorted(zip(image.names, image.boxes.tolist(), strict=True))
        assert [category for category, _ in found] == sorted(d.name for d in row.found)
        for (_, box), expected in zip(found, sorted((d.name, d.box) for d in row.found), strict=True):
            assert box == pytest.approx(expected[1], abs=0.011)
    assert set(report.counts) <= {"image without a file of labels: taken to have no objects"}
    assert not report.counts


def test_coco_has_scores_and_every_category_and_is_read_without_an_index(tmp_path: Path, labels: Labels) -> None:
    file = WRITERS["coco"](labels, tmp_path / "out")
    records = read_records(file, labels.source.root, every_format()["coco"])
    assert records.names == CATEGORIES
    content = json.loads(file.read_text())
    assert [box["score"] for box in content["annotations"]] == [0.75, 0.5] * 6
    assert [image["file_name"] for image in content["images"]] == list(labels.source.names[:-1])


def test_label_studio_s_interface_names_every_category(tmp_path: Path, labels: Labels) -> None:
    file = WRITERS["label_studio"](labels, tmp_path / "out")
    view = ElementTree.parse(file.with_name("label_config.xml"))
    assert [label.get("value") for label in view.iter("Label")] == list(CATEGORIES)
    [result, _] = json.loads(file.read_text())[0]["predictions"][0]["result"]
    assert (result["from_name"], result["to_name"]) == ("label", view.find("Image").get("name"))  # type: ignore[union-attr]
    assert view.find("RectangleLabels").get("name") == "label"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["voc", "yolo"])
def test_files_of_an_earlier_call_are_gone(tmp_path: Path, labels: Labels, name: str) -> None:
    place = WRITERS[name](labels, tmp_path / "out")
    folder = place if place.is_dir() else place.parent
    before = {path.relative_to(folder) for path in folder.rglob("*")}
    (folder / "old.xml").write_text("old")
    WRITERS[name](labels, tmp_path / "out")
    assert {path.relative_to(folder) for path in folder.rglob("*")} == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {folder.name, "journal"}
