from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools import coco

from trex2_lightning.data.formats.coco import FORMAT as COCO
from trex2_lightning.data.formats.voc import FORMAT as VOC
from trex2_lightning.data.opening import open_records, read_records
from trex2_lightning.data.records import Records
from trex2_lightning.errors import InputError

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
    return read_records(folder / "a.json", folder / "images", COCO)


def test_reads_what_the_file_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = read(tmp_path)
    assert records.names == ("cat", "dog")
    assert records.category_ids == (20, 10)
    assert records.groups == ("rare", "")
    assert records.annotations == tmp_path / "a.json"
    assert caplog.messages == []
    first, second = records.images
    assert (first.id, first.width, first.height) == (7, 100, 50)
    assert second.path == tmp_path / "images" / "sub" / "a.jpg"
    assert first.boxes.tolist() == [[10.5, 0, 30.5, 50]]
    assert second.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 40, 40]]
    assert second.labels.tolist() == [1, 0]
    assert second.crowd.tolist() == [True, False]
    assert second.area.tolist() == [9.5, 1600]  # the box's where the file has none


def test_agrees_with_pycocotools(tiny_coco: Path) -> None:
    records = read_records(tiny_coco / "train.json", tiny_coco / "train", COCO)
    reference = coco.COCO(str(tiny_coco / "train.json"))
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
    assert kept[:2].tolist() == [[90, 40, 100, 50], [0, 0, 5, 5]]
    assert kept[3].tolist() == [10, 10, 15, 15]
    assert kept[2, 2] == 100
    assert len(kept) == len(records.images[0].labels) == len(records.images[0].crowd) == 4
    assert [message.partition("a.json: ")[2] for message in caplog.messages] == [
        "2 x box without area (image 7)",
        "2 x box outside its image (image 7)",
        "2 x box that reached out of its image: clipped (image 7)",
    ]


BROKEN: dict[str, tuple[Edit, str]] = {
    "unknown image": (
        lambda v: v["annotations"][1].update(image_id=99),
        "annotation 2, image 99: annotation of an unknown image;",
    ),
    "unknown category": (
        lambda v: v["annotations"][0].update(category_id=5),
        "annotation 1, category 5: box of an unknown category;",
    ),
    "image of a list": (
        lambda v: v["annotations"][1].update(image_id=[7]),
        "annotation 2: annotation without an image",
    ),
    "category of a mapping": (
        lambda v: v["annotations"][0].update(category_id={}),
        "annotation 1: box of an unknown category",
    ),
    "duplicate image": (lambda v: v["images"][1].update(id=7), "image 7: image id given twice;"),
    "duplicate category": (lambda v: v["categories"][1].update(id=20), "category 20: category id given twice;"),
    "duplicate annotation": (lambda v: v["annotations"][2].update(id=1), "annotation 1: annotation id given twice;"),
    "annotation without id": (
        lambda v: v["annotations"][2].pop("id"),
        "annotation None: annotation without an integer id",
    ),
    "no bbox": (lambda v: v["annotations"][2].pop("bbox"), "annotation 3: box that is not four finite numbers"),
    "no width": (lambda v: v["images"][0].pop("width"), "image 7: image without width and height"),
    "no id": (lambda v: v["images"][1].pop("id"), "image 1 of the list: image without an integer id"),
    "no section": (lambda v: v.pop("annotations"), "its object: no list 'annotations';"),
    "three numbers": (
        lambda v: v["annotations"][0].update(bbox=[1, 2, 3]),
        "annotation 1: box that is not four finite numbers",
    ),
    "not a number": (
        lambda v: v["annotations"][0].update(bbox=[1, 2, 3, float("nan")]),
        "annotation 1: box that is not four finite numbers",
    ),
    "area": (
        lambda v: v["annotations"][0].update(area=None),
        "annotation 1: box with an area that is not a finite number;",
    ),
    "zero width": (lambda v: v["images"][0].update(width=0), "image 7: image without width and height"),
    "no text": (lambda v: v["images"][0].update(file_name=5), "image 7: image without a file name"),
    "above": (
        lambda v: v["images"][0].update(file_name="../b.jpg"),
        "image 7: ../b.jpg: image file outside its folder",
    ),
    "absolute": (lambda v: v["images"][0].update(file_name="/b.jpg"), "image 7: /b.jpg: image file outside its folder"),
    "empty name": (lambda v: v["categories"][0].update(name="  "), "category 20: category without a name"),
    "same name": (lambda v: v["categories"][1].update(name="Cat"), "category 10, Cat: category name given twice;"),
    "no images": (lambda v: (v["images"].clear(), v["annotations"].clear()), "list of images is empty"),
    "no categories": (lambda v: (v["categories"].clear(), v["annotations"].clear()), "list of categories is empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named_with_the_entry(tmp_path: Path, case: str) -> None:
    edit, expected = BROKEN[case]
    with pytest.raises(InputError) as error:
        read(tmp_path, edit)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "a.json"))
    assert expected in message
    assert "\n" not in message
    assert message.endswith("; correct or remove it") or "; give " in message


def test_the_size_of_an_image_is_the_file_s(tmp_path: Path) -> None:
    """None is opened, nor looked for."""
    records = read(tmp_path)
    assert [(image.width, image.path.exists()) for image in records.images] == [(100, False), (40, False)]


def test_a_category_that_only_heads_the_others_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def edit(value: dict[str, Any]) -> None:
        value["categories"][0] |= {"supercategory": "animals"}
        value["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})

    records = read(tmp_path, edit)
    assert (records.names, records.category_ids) == (("cat", "dog"), (20, 10))
    assert [image.labels.tolist() for image in records.images] == [[0], [1, 0]]
    [message] = caplog.messages
    assert "a.json: 1 x category that only heads the others" in message


def test_a_file_of_a_format_that_is_read_from_an_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotation/>")
    with pytest.raises(InputError, match=r"a\.xml: voc is read from an index alone; make an index"):
        open_records(tmp_path / "a.xml", tmp_path, VOC)
    with pytest.raises(InputError, match=r"a\.xml: coco is read from \.json files; make an index"):
        open_records(tmp_path / "a.xml", tmp_path, COCO)
    with pytest.raises(InputError, match=r"a: no index is there"):
        open_records(tmp_path / "a", tmp_path, COCO)


def test_missing_file_and_folder_say_which_key_to_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such annotation file; set data\.root="):
        read_records(tmp_path / "a.json", tmp_path, COCO)
    (tmp_path / "a.json").write_text(json.dumps(content()))
    with pytest.raises(InputError, match=r"no such image folder; set data\.root="):
        read_records(tmp_path / "a.json", tmp_path / "images", COCO)


@pytest.mark.parametrize("text", [b'{"images": [', b"\xff\xfe\x00", b""])
def test_not_json(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(InputError, match="not JSON"):
        read_records(tmp_path / "a.json", tmp_path, COCO)


@pytest.mark.parametrize("text", ["[]", '{"images": {}}', "3"])
def test_json_of_something_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"not JSON with lists|its object: no list 'images'"):
        read_records(tmp_path / "a.json", tmp_path, COCO)
