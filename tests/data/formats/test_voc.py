from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.voc import read_voc
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Pictures = Callable[..., Path]
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"

# See test_every_format.py.
XML = (
    "<annotation><filename>a.jpg</filename><object><name>dog</name><difficult>0</difficult>"
    "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>4</xmax><ymax>6</ymax></bndbox></object></annotation>"
)
SAMPLE: Any = ({"xml/a.xml": XML, "train.txt": "a\n"}, ["xml"], ["--split", "train.txt"], ["dog"])


def item(name: str = "dog", difficult: int = 0, box: tuple[object, ...] = (1, 2, 10, 12)) -> str:
    name = f"<name>{name}</name>" if name else ""
    return f"<object>{name}<pose>Left</pose><difficult>{difficult}</difficult>{BOX.format(*box)}</object>"


def xml(*objects: str, file: str = "a.jpg", size: str = "<width>40</width><height>30</height><depth>3</depth>") -> str:
    return f"<annotation><filename>{file}</filename><size>{size}</size>{''.join(objects)}</annotation>"


def read(files: dict[str, str | bytes], folder: Path, split: str | None = None) -> tuple[list[Annotated], Report]:
    annotations, report = folder.parent / "Annotations", Report()
    annotations.mkdir()
    for name, text in files.items():
        (annotations / f"{name}.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    listed = folder.parent / "split.txt"
    listed.write_text(split or "")
    return list(read_voc(annotations, ImageStore([folder]), report, listed if split else None)), report


def test_pixels_count_from_one_and_difficult_is_ignored(pictures: Pictures) -> None:
    files = {"a": xml(item(), item("cat", 1, (40, 30, 40, 30))), "b": xml(item("cat"), file="other.jpg")}
    (first, second), report = read(files, pictures("a.jpg", "b.jpg"))
    assert first.boxes.tolist() == [[0, 1, 10, 12], [39, 29, 40, 30]]  # the last is one pixel
    assert (first.names, first.crowd.tolist(), first.judged) == (["dog", "cat"], [False, True], None)
    assert Path(second.path).name == "b.jpg"  # the file's own name, where `filename` is another
    assert report.counts == {}


def test_a_split_chooses_and_orders(pictures: Pictures) -> None:
    files = {name: xml(file=f"{name}.jpg") for name in "abc"}
    images, report = read(files, pictures("a.jpg", "b.jpg", "c.jpg"), "c\na  1\n\na -1\ngone\n")
    assert [Path(image.path).stem for image in images] == ["c", "a"]
    assert report.counts == {"image named twice: used once": 1, "annotation file missing": 1}


DEFECTS: dict[str, str | bytes] = {
    "image file missing": xml(file="gone.jpg"),
    "image given twice: the first is used": xml(),
    "box without a name: its image judges nothing": xml(item(""), file="b.jpg"),
    "box without area": xml(item(box=(5, 5, 4, 9)), file="b.jpg"),
    "box outside its image": xml(item(box=(50, 5, 60, 9)), file="b.jpg"),
    "box that reached out of its image: clipped": xml(item(box=(30, 5, 60, 9)), file="b.jpg"),
    "box that is not four finite numbers": xml(item(box=(1, "x", 4, 5)), file="b.jpg"),
    "annotation file that is not XML": xml(item())[:-9],
}


@pytest.mark.parametrize("reason", DEFECTS)
def test_every_defect_is_counted(pictures: Pictures, reason: str) -> None:
    images, report = read({"a": xml(item()), "c": DEFECTS[reason]}, pictures("a.jpg", "b.jpg"))
    assert report.counts == {reason: 1}
    assert images[0].names == ["dog"]


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", xml(item("\xe9")).encode("latin-1"), b'<?xml encoding="x-9"?><a/>'])
def test_wrong_encodings_are_counted(pictures: Pictures, text: bytes) -> None:
    _, report = read({"a": xml(item()), "b": text}, pictures("a.jpg"))
    assert report.counts == {"annotation file that is not XML": 1}


def test_without_a_size_the_image_is_asked(pictures: Pictures) -> None:
    [image], _ = read({"a": xml(item(), size="")}, pictures("a.jpg"))
    assert (image.width, image.height) == (40, 30)


def test_a_folder_without_xml_is_refused(pictures: Pictures) -> None:
    with pytest.raises(InputError, match="names no image; give a folder of XML files"):
        read({}, pictures("a.jpg"))
    with pytest.raises(InputError, match="no such folder; give the one with the XML files"):
        list(read_voc(Path("gone"), ImageStore([pictures()]), Report()))


@pytest.mark.parametrize(("wrong", "judged"), [(item("cat", box=(1, "x", 4, 5)), ["dog", "bird"]), (item(""), [])])
def test_a_lost_box_leaves_its_category_alone_unjudged(pictures: Pictures, wrong: str, judged: list[str]) -> None:
    files = {"a": xml(item(), wrong), "b": xml(item("Bird"), item("DOG"), file="b.jpg"), "c": xml(item("bird"))}
    (first, second), report = read(files, pictures("a.jpg", "b.jpg"))
    assert first.judged is not None
    assert [name.casefold() for name in first.judged] == judged
    assert (second.names, second.judged) == (["Bird", "dog"], None)
    assert report.names == ["dog", *["cat"][: len(judged)], "Bird"]
