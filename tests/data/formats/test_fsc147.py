from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coco_files import box, one_box, written
from PIL import Image

from trex2_lightning.data.formats.fsc147 import FORMAT
from trex2_lightning.data.opening import read_records
from trex2_lightning.errors import InputError

# See test_every_format.py.
COUNTED = {"box_examples_coordinates": [[[1, 2], [1, 6], [4, 6], [4, 2]]], "points": [[2, 3]]}
SAMPLE: Any = (
    {
        "instances_test.json": one_box(),
        "annotation_FSC147_384.json": {"a.jpg": COUNTED},
        "Train_Test_Val_FSC_147.json": {"test": ["a.jpg"]},
    },
    ["instances_test.json"],
    [],
    ["object"],
)


def fsc147(folder: Path) -> None:
    """The published layout, with one image for val and one for test; corners in FSC-147's order."""
    corners = [
        [[10, 4], [10, 14], [30, 14], [30, 4]],
        [[0, 0], [0, 9], [9, 9], [9, 0]],
        [[50, 30], [50, 45], [70, 45], [70, 30]],
    ]
    entry = {"H": 400, "W": 600, "box_examples_coordinates": corners, "points": [[20.5, 9], [4, 4], [55, 35], [1, 1]]}
    written(folder / "annotation_FSC147_384.json", {"2.jpg": entry, "3.jpg": entry})
    written(folder / "Train_Test_Val_FSC_147.json", {"train": [], "val": ["2.jpg"], "test": ["3.jpg"]})
    (folder / "images_384_VarV2").mkdir()
    for name in ("2.jpg", "3.jpg"):
        Image.new("RGB", (60, 40)).save(folder / "images_384_VarV2" / name)


def test_fsc147_has_three_exemplars_and_a_count(tmp_path: Path) -> None:
    fsc147(tmp_path)
    records = read_records(tmp_path / "instances_test.json", tmp_path / "images_384_VarV2", FORMAT)
    [image] = records.images
    assert (image.path.name, image.width, image.height, image.num_objects) == ("3.jpg", 60, 40, 4)
    assert image.exemplars is not None
    assert image.exemplars.tolist() == [[10, 4, 30, 14], [0, 0, 9, 9], [50, 30, 60, 40]]
    assert (len(records.names), len(image.boxes)) == (1, 0)


def test_fsc147_with_the_boxes_of_fscd147(tmp_path: Path) -> None:
    fsc147(tmp_path)
    content = {
        "images": [{"id": 41, "file_name": "3.jpg", "height": 40, "width": 60}],
        "categories": [{"id": 1, "name": "fg"}],
        "annotations": [box(1, 41, 1, [10, 4, 20, 10]), box(2, 41, 1, [0, 0, 9, 9])],
    }
    records = read_records(written(tmp_path / "instances_test.json", content), tmp_path / "images_384_VarV2", FORMAT)
    [image] = records.images
    assert (image.id, image.num_objects, len(image.boxes)) == (41, 4, 2)
    [other] = read_records(tmp_path / "instances_val.json", tmp_path / "images_384_VarV2", FORMAT).images
    assert other.path.name == "2.jpg"


def test_broken_files_of_fsc147_are_named(tmp_path: Path) -> None:
    fsc147(tmp_path)
    written(tmp_path / "annotation_FSC147_384.json", {"2.jpg": {}})
    with pytest.raises(InputError, match=r"'3\.jpg'.* in FSC-147's test split; fetch its files again"):
        read_records(tmp_path / "instances_test.json", tmp_path / "images_384_VarV2", FORMAT)
    (tmp_path / "annotation_FSC147_384.json").unlink()
    with pytest.raises(InputError, match=r"annotation_FSC147_384\.json: no such annotation file"):
        read_records(tmp_path / "instances_test.json", tmp_path / "images_384_VarV2", FORMAT)
