from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coco_files import one_box

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import FORMAT as COCO
from trex2_lightning.data.formats.coco import read_coco
from trex2_lightning.data.formats.lvis import FORMAT as LVIS
from trex2_lightning.data.formats.lvis import read_lvis
from trex2_lightning.data.formats.objects365 import read_objects365
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.opening import read_records
from trex2_lightning.errors import InputError

Pictures = Callable[..., Path]


# See test_every_format.py.
SAMPLE: Any = ({"a.json": one_box()}, ["a.json"], [], ["dog"])


def content() -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 10, "bbox": [1, 2, 3, 4], "area": 9.5, "iscrowd": 1},
            {"id": 2, "image_id": 7, "category_id": 20, "bbox": [10.5, 0, 20, 30]},
            {"id": 3, "image_id": 3, "category_id": 20, "bbox": [0, 0, 40, 30], "segmentation": [[1, 2, 3, 4, 5, 6]]},
        ],
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 40, "height": 30},
            {"id": 3, "file_name": "sub/a.jpg", "width": 40, "height": 30},
        ],
        "licenses": [],
        "categories": [{"id": 20, "name": " cat ", "group": "rare"}, {"id": 10, "name": "dog"}],
    }


def read(value: Any, folder: Path, reader: Any = read_coco) -> tuple[list[Annotated], Report]:
    path = folder.parent / "a.json"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    report = Report()
    return list(reader(path, ImageStore([folder]), report)), report


def test_reads_what_the_file_says_in_whatever_order(pictures: Pictures) -> None:
    folder = pictures("b.jpg", "sub/a.jpg")
    (first, second), report = read(content(), folder)
    assert (report.names, report.category_ids, report.groups) == (["cat", "dog"], [20, 10], ["rare", ""])
    assert (first.id, first.path, first.width, first.height) == (7, str(folder / "b.jpg"), 40, 30)
    assert first.boxes.tolist() == [[10.5, 0, 30.5, 30]]
    assert second.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 40, 30]]
    assert second.names == ["dog", "cat"]
    assert second.crowd.tolist() == [True, False]
    assert second.area.tolist() == [9.5, 1200]
    assert first.judged is None
    assert report.counts == {}


DEFECTS: dict[str, tuple[Callable[[dict[str, Any]], Any], int]] = {
    "image file outside its folder": (lambda v: v["images"][0].update(file_name=".."), 2),
    "image file missing": (lambda v: v["images"][0].update(file_name="gone.jpg"), 2),
    "image without a file name": (lambda v: v["images"][0].update(file_name=5), 2),
    "image without width and height": (lambda v: v["images"][0].update(width=0), 2),
    "image id given twice: the first is used": (lambda v: v["images"].append(dict(v["images"][0], file_name="x")), 3),
    "image without an integer id": (lambda v: v["images"].append({"id": "a7"}), 3),
    "box whose iscrowd is neither 0 nor 1: taken for 0": (lambda v: v["annotations"][1].update(iscrowd="x"), 3),
    "box outside its image": (lambda v: v["annotations"][1].update(bbox=[41, 0, 5, 5]), 2),
    "box that reached out of its image: clipped": (lambda v: v["annotations"][1].update(bbox=[30, 0, 15, 5]), 3),
    "box without area": (lambda v: v["annotations"][1].update(bbox=[3, 3, 0, 5]), 2),
    "box that is not four finite numbers": (lambda v: v["annotations"][1].update(bbox=[3, None, 4, 5]), 2),
    "box with an area that is not a finite number: its own is taken": (
        lambda v: v["annotations"][1].update(area="x"),
        3,
    ),
    "annotation without an integer id: told apart by its place": (lambda v: v["annotations"][1].pop("id"), 3),
    "box of an unknown category": (lambda v: v["annotations"][1].update(category_id=99), 2),
    "annotation of an unknown image": (lambda v: v["annotations"][1].update(image_id=99), 2),
    "annotation without an image": (lambda v: v["annotations"].append("x"), 3),
    "annotation id given twice: the first is used": (lambda v: v["annotations"][2].update(id=1), 2),
    "category id given twice: the first is used": (lambda v: v["categories"].append({"id": 10, "name": "c"}), 3),
    "category name given twice: made one": (lambda v: v["categories"].append({"id": 11, "name": "Dog"}), 3),
    "category without a name": (lambda v: v["categories"].append({"id": 11, "name": " "}), 3),
    "no list 'annotations': taken to be empty": (lambda v: v.pop("annotations"), 0),
    "category without an integer id": (lambda v: v["categories"].append({"name": "x"}), 3),
}


@pytest.mark.parametrize("reader", [read_coco, read_lvis, read_objects365])
@pytest.mark.parametrize("reason", DEFECTS)
def test_every_defect_is_counted_with_its_place_and_takes_nothing_else(
    pictures: Pictures, reason: str, reader: Any
) -> None:
    edit, boxes_left = DEFECTS[reason]
    value = content()
    if reader is read_lvis:
        for image in value["images"]:
            image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    edit(value)
    images, report = read(value, pictures("b.jpg", "sub/a.jpg"), reader)
    assert report.counts == {reason: 1}
    assert report.examples[reason]
    assert sum(len(image.boxes) for image in images) == boxes_left


def test_an_image_that_does_not_say_its_size_is_asked(pictures: Pictures) -> None:
    value = content()
    del value["images"][0]["width"]
    (first, _), report = read(value, pictures("b.jpg", "sub/a.jpg"))
    assert (first.width, first.height) == (40, 30)
    assert not report.counts


@pytest.mark.parametrize("written", [str, float, lambda number: f"{number:03}"])
def test_ids_that_a_tool_wrote_as_text_or_with_a_point(pictures: Pictures, written: Callable[[int], Any]) -> None:
    value = content()
    for entry in [*value["images"], *value["annotations"], *value["categories"]]:
        entry.update({key: written(entry[key]) for key in entry.keys() & {"id", "image_id", "category_id"}})
    expected, _ = read(content(), pictures("b.jpg", "sub/a.jpg"))
    images, report = read(value, pictures("b.jpg", "sub/a.jpg"))
    assert [(i.id, i.names, i.boxes.tolist()) for i in images] == [(i.id, i.names, i.boxes.tolist()) for i in expected]
    assert report.counts == {}


@pytest.mark.parametrize(
    ("written", "crowd"),
    [
        ("0", False),
        ("1", True),
        (0.0, False),
        (1.0, True),
        ("false", False),
        ("True", True),
        (None, False),
        ("", False),
    ],
)
def test_a_crowd_is_what_says_so(pictures: Pictures, written: Any, crowd: bool) -> None:
    value = one_box()
    value["annotations"] = [value["annotations"][0] | {"iscrowd": written}]
    [image], report = read(value, pictures("a.jpg"))
    assert image.crowd.tolist() == [crowd]
    assert report.counts == {}


def test_boxes_as_shares_of_their_image_are_refused(pictures: Pictures) -> None:
    value = content()
    for number, entry in enumerate(value["annotations"]):
        entry["bbox"] = [0.1 * number, 0.2, 0.5, 0.75]
    with pytest.raises(InputError, match="so they are shares of it; COCO's format has pixels"):
        read(value, pictures("b.jpg", "sub/a.jpg"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_any_unicode_and_gzip_is_read_by_either_reader(
    pictures: Pictures, tmp_path: Path, encoding: str, name: str
) -> None:
    text = json.dumps(one_box() | {"categories": [{"id": 1, "name": "Größe"}]}, ensure_ascii=False).encode(encoding)
    file = tmp_path / name
    file.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    report = Report()
    [image] = read_coco(file, ImageStore([pictures("a.jpg")]), report)
    assert report.names == ["Größe"]
    records = read_records(file, pictures("a.jpg"), COCO)
    assert records.images[0].boxes.tolist() == image.boxes.tolist()
    assert COCO.is_direct(file)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"3",
        b'{"images": [',
        b'{"images": [{"id": 1}',
        b'{"images": []} x',
        b'{"images": [{"id": 1, "file_name": "\xff\xfe"}]}',
        b'{"images": [' + b"[" * 100_000,
        json.dumps(content()).encode()[:-40],
        json.dumps({"images": content()["images"]}).encode(),
        json.dumps({"categories": content()["categories"]}).encode(),
        json.dumps({"images": {}, "categories": []}).encode(),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(pictures: Pictures, text: bytes) -> None:
    with pytest.raises(InputError, match=r"^.*a\.json: .*; give (the|an) annotation file[^\n]*$"):
        read(text, pictures("b.jpg"))


def test_a_byte_order_mark_is_no_defect(pictures: Pictures) -> None:
    images, _ = read(json.dumps(content()).encode("utf-8-sig"), pictures("b.jpg", "sub/a.jpg"))
    assert len(images) == 2


def test_a_file_larger_than_the_window_is_read_whole(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures("b.jpg", "sub/a.jpg")
    whole, _ = read(content(), folder)
    for window in (1, 7, 64):
        monkeypatch.setattr("trex2_lightning.data.annotations.json_files.WINDOW", window)
        parts, _ = read(content(), folder)
        assert [image.boxes.tolist() for image in parts] == [image.boxes.tolist() for image in whole]


@pytest.mark.parametrize("number", [0, 5])
def test_roboflow_heads_its_categories_with_their_group(pictures: Pictures, number: int) -> None:
    value = content()
    value["categories"] = [
        {"id": number, "name": "animals", "supercategory": "none"},
        {"id": 10, "name": "dog", "supercategory": "animals"},
        {"id": 20, "name": "cat", "supercategory": "animals"},
    ]
    _, report = read(value, pictures("b.jpg", "sub/a.jpg"))
    assert report.names == ["dog", "cat"]
    assert report.counts == {"category that only heads the others (Roboflow)": 1}


def test_lvis_judges_what_it_says(pictures: Pictures) -> None:
    value = content()
    value["categories"] = [
        {"id": number, "name": name, "frequency": frequency}
        for number, name, frequency in ((10, "dog", "f"), (20, "cat", "c"), (30, "sea_cow", "r"), (40, "bee", "r"))
    ]
    for image, absent, partial in zip(value["images"], ([30], []), ([], [20]), strict=True):
        del image["file_name"]
        image.update(neg_category_ids=absent, not_exhaustive_category_ids=partial)
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image['id']}.jpg"
    (first, second), report = read(value, pictures("val2017/7.jpg", "3.jpg"), read_lvis)
    assert report.groups == ["frequent", "common", "rare", "rare"]
    assert first.judged == ["cat", "sea cow"]  # it has a cat and no cow; of dogs and bees nothing is known
    assert second.judged == ["dog"]  # it has more cats than are marked
    assert second.names == ["dog", "cat"]
    assert first.path.endswith("val2017/7.jpg")
    assert second.path.endswith("pictures/3.jpg")


@pytest.mark.parametrize(
    ("changes", "reason", "judged"),
    [
        ({"neg_category_ids": [10, 99, "x"]}, "judged category that is unknown", 2),
        ({"neg_category_ids": None}, "image that does not say which categories it judges: taken to judge none", 1),
        (
            {"not_exhaustive_category_ids": 3},
            "image that does not say which categories it judges: taken to judge none",
            1,
        ),
    ],
)
def test_what_lvis_judges_may_be_broken_too(pictures: Pictures, changes: Any, reason: str, judged: int) -> None:
    value = content()
    for image in value["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    value["images"][0].update(changes)
    (first, second), report = read(value, pictures("b.jpg", "sub/a.jpg"), read_lvis)
    assert report.counts == {reason: 2 if judged == 2 else 1}
    assert first.judged == (["cat", "dog"] if judged == 2 else [])
    assert second.judged == ["dog", "cat"]


def test_a_category_that_lost_a_box_is_not_judged(pictures: Pictures) -> None:
    value = content()
    for image in value["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    value["annotations"][1]["bbox"] = [3, 3, 0, 5]
    (first, second), _ = read(value, pictures("b.jpg", "sub/a.jpg"), read_lvis)
    assert (first.judged, second.judged) == ([], ["dog", "cat"])


def test_a_category_whose_box_is_lost_is_not_judged_where_all_others_are(pictures: Pictures) -> None:
    for box, judged in (([3, None, 4, 5], ["dog"]), ([3, 3, 0, 5], ["dog"]), ([90, 90, 5, 5], None)):
        value = content()
        value["annotations"][1]["bbox"] = box
        (first, second), _ = read(value, pictures("b.jpg", "sub/a.jpg"))
        assert (first.judged, second.judged) == (judged, None)


def test_lvis_has_the_same_names_in_evaluation(pictures: Pictures) -> None:
    value = content()
    value["categories"][0]["name"] = "sea_lion"
    for image in value["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    folder = pictures("b.jpg", "sub/a.jpg")
    _, report = read(value, folder, read_lvis)
    records = read_records(folder.parent / "a.json", folder, LVIS)
    assert tuple(report.names) == records.names == ("sea lion", "dog")
