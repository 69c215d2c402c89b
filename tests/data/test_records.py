from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO

from trex2_lightning.data.records import CocoError, Records, read_coco

Edit = Callable[[dict[str, Any]], Any]


def content() -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 100, "height": 50},
            {"id": 3, "file_name": "sub/a.jpg", "width": 40, "height": 40},
        ],
        "categories": [{"id": 20, "name": " cat ", "group": "rare"}, {"id": 10, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 10, "bbox": [1, 2, 3, 4], "area": 9.5, "iscrowd": 1},
            {"id": 2, "image_id": 7, "category_id": 20, "bbox": [10.5, 0, 20, 50]},
            {"id": 3, "image_id": 3, "category_id": 20, "bbox": [0, 0, 40, 40]},
        ],
    }


def read(folder: Path, edit: Edit = lambda value: None) -> Records:
    value = content()
    edit(value)
    (folder / "a.json").write_text(json.dumps(value))
    (folder / "images").mkdir()
    return read_coco(folder / "a.json", folder / "images")


def test_reads_what_the_file_says(tmp_path: Path) -> None:
    records = read(tmp_path)
    assert records.names == ("cat", "dog")
    assert records.category_ids == (20, 10)
    assert records.groups == ("rare", "")
    assert records.annotations == tmp_path / "a.json"
    assert (records.num_dropped, records.num_clipped) == (0, 0)
    first, second = records.images
    assert (first.id, first.width, first.height) == (7, 100, 50)
    assert second.path == tmp_path / "images" / "sub" / "a.jpg"
    assert first.boxes.tolist() == [[10.5, 0, 30.5, 50]]
    assert second.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 40, 40]]
    assert second.labels.tolist() == [1, 0]
    assert second.crowd.tolist() == [True, False]
    assert second.area.tolist() == [9.5, 1600]  # the box's where the file has none


def test_agrees_with_pycocotools(tiny_coco: Path) -> None:
    records = read_coco(tiny_coco / "train.json", tiny_coco / "train")
    reference = COCO(str(tiny_coco / "train.json"))
    assert sum(len(image.boxes) for image in records.images) == len(reference.anns) > 0
    for image in records.images:
        expected = reference.imgToAnns[image.id]
        assert (image.boxes[:, 2:] - image.boxes[:, :2]).tolist() == [item["bbox"][2:] for item in expected]
        assert [records.category_ids[label] for label in image.labels] == [item["category_id"] for item in expected]
        assert image.path.is_file()


def test_image_without_boxes_is_kept(tmp_path: Path) -> None:
    first, _ = read(tmp_path, lambda value: value["annotations"].pop(1)).images
    assert first.boxes.shape == (0, 4)
    assert first.boxes.dtype == torch.float32
    assert first.labels.dtype == torch.int64


def test_a_file_may_have_no_annotations(tmp_path: Path) -> None:
    records = read(tmp_path, lambda value: value["annotations"].clear())
    assert [len(image.boxes) for image in records.images] == [0, 0]


def test_bad_boxes_are_mended_counted_and_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    boxes = [
        [90, 40, 20, 20],  # reaches out: clipped
        [-5, -5, 10, 10],  # reaches out at the other end: clipped
        [10, 10, 0, 5],  # no area
        [10, 10, 5, -5],  # negative height
        [100, 10, 5, 5],  # wholly outside
        [-9, 10, 5, 5],  # wholly outside
        [79.996, 0, 20.01, 50],  # 0.006 px too far: the rounding of the file
        [10, 10, 5, 5],
    ]

    def edit(value: dict[str, Any]) -> None:
        value["annotations"] = [
            {"id": number, "image_id": 7, "category_id": 10, "bbox": box} for number, box in enumerate(boxes)
        ]

    with caplog.at_level(logging.WARNING):
        records = read(tmp_path, edit)
    kept = records.images[0].boxes
    assert (records.num_dropped, records.num_clipped) == (4, 2)
    assert kept[:2].tolist() == [[90, 40, 100, 50], [0, 0, 5, 5]]
    assert kept[3].tolist() == [10, 10, 15, 15]
    assert kept[2, 2] == 100
    assert len(kept) == len(records.images[0].labels) == len(records.images[0].crowd) == 4
    [message] = caplog.messages
    assert "a.json: 4 boxes without area" in message
    assert "2 boxes clipped" in message


BROKEN: dict[str, tuple[Edit, str]] = {
    "unknown image": (lambda v: v["annotations"][1].update(image_id=99), "annotation id 2 refers to image id 99"),
    "unknown category": (
        lambda v: v["annotations"][0].update(category_id=5),
        "annotation id 1 refers to category id 5",
    ),
    "image of a list": (
        lambda v: v["annotations"][1].update(image_id=[7]),
        "annotation id 2 has the image_id [7], not an integer",
    ),
    "category of a mapping": (
        lambda v: v["annotations"][0].update(category_id={}),
        "annotation id 1 has the category_id {}, not an integer",
    ),
    "duplicate image": (lambda v: v["images"][1].update(id=7), "image id 7 occurs twice"),
    "duplicate category": (lambda v: v["categories"][1].update(id=20), "category id 20 occurs twice"),
    "duplicate annotation": (lambda v: v["annotations"][2].update(id=1), "annotation id 1 occurs twice"),
    "no bbox": (lambda v: v["annotations"][2].pop("bbox"), "annotation id 3 has no 'bbox'"),
    "no width": (lambda v: v["images"][0].pop("width"), "image id 7 has no 'width'"),
    "no id": (lambda v: v["images"][1].pop("id"), "entry 1 of 'images'"),
    "no section": (lambda v: v.pop("annotations"), "has no list 'annotations'"),
    "three numbers": (lambda v: v["annotations"][0].update(bbox=[1, 2, 3]), "annotation id 1 has the bbox"),
    "not a number": (
        lambda v: v["annotations"][0].update(bbox=[1, 2, 3, float("nan")]),
        "annotation id 1 has the bbox",
    ),
    "area": (lambda v: v["annotations"][0].update(area=None), "annotation id 1 has the area"),
    "zero width": (lambda v: v["images"][0].update(width=0), "image id 7 has width 0"),
    "empty name": (lambda v: v["categories"][0].update(name="  "), "category id 20 has an empty name"),
    "same name": (lambda v: v["categories"][1].update(name="Cat"), "category id 10 has the name 'Cat' of another"),
    "no images": (lambda v: (v["images"].clear(), v["annotations"].clear()), "list of images is empty"),
    "no categories": (lambda v: (v["categories"].clear(), v["annotations"].clear()), "list of categories is empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named_with_the_entry(tmp_path: Path, case: str) -> None:
    edit, expected = BROKEN[case]
    with pytest.raises(CocoError) as error:
        read(tmp_path, edit)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "a.json"))
    assert expected in message
    assert "\n" not in message


def test_missing_file_and_folder_say_which_key_to_set(tmp_path: Path) -> None:
    with pytest.raises(CocoError, match=r"no such annotation file; set data\.root="):
        read_coco(tmp_path / "a.json", tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(content()))
    with pytest.raises(CocoError, match=r"no such image folder; set data\.root="):
        read_coco(tmp_path / "a.json", tmp_path / "images")


@pytest.mark.parametrize("text", [b'{"images": [', b"\xff\xfe\x00", b""])
def test_not_json(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(CocoError, match="not JSON"):
        read_coco(tmp_path / "a.json", tmp_path)


@pytest.mark.parametrize("text", ["[]", '{"images": {}}', "3"])
def test_json_of_something_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CocoError, match="has no list 'images'"):
        read_coco(tmp_path / "a.json", tmp_path)
