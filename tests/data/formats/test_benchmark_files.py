"""Benchmarks' annotations in their own formats, written small."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trex2_lightning.data.formats.benchmark_files import read_fsc147, read_fscd_lvis, read_lvis, read_roboflow
from trex2_lightning.data.records import CocoError


def box(number: int, image: int, category: int, xywh: list[float]) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": xywh, "area": xywh[2] * xywh[3]}


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


# LVIS


def lvis(**image: Any) -> dict[str, Any]:
    """Two of LVIS's categories and an image without `file_name`, as version 1 has them."""
    url = {"coco_url": "http://images.cocodataset.org/train2017/000000391895.jpg"}
    federated = {"neg_category_ids": [7], "not_exhaustive_category_ids": [3]}
    return {
        "images": [{"id": 391895, "height": 40, "width": 60} | url | federated | image],
        "categories": [
            {"id": 3, "name": "stop_sign", "frequency": "f"},
            {"id": 7, "name": "cap_(headwear)", "frequency": "r"},
            {"id": 9, "name": "acorn", "frequency": "c"},
        ],
        "annotations": [box(1, 391895, 3, [1, 2, 30, 20])],
    }


def test_lvis_says_what_is_judged(tmp_path: Path) -> None:
    records = read_lvis(written(tmp_path / "lvis.json", lvis()), tmp_path)
    [image] = records.images
    assert image.path == tmp_path / "train2017" / "000000391895.jpg"
    assert image.judged is not None
    assert (image.labels.tolist(), image.judged.tolist()) == ([0], [1])
    assert records.names == ("stop sign", "cap (headwear)", "acorn")
    assert records.groups == ("frequent", "rare", "common")
    assert records.category_ids == (3, 7, 9)


@pytest.mark.parametrize("image", [{"neg_category_ids": [99]}, {"not_exhaustive_category_ids": None}])
def test_lvis_without_its_fields_is_refused(tmp_path: Path, image: dict[str, Any]) -> None:
    with pytest.raises(CocoError, match=r"lvis\.json: an image has no or wrong category ids"):
        read_lvis(written(tmp_path / "lvis.json", lvis(**image)), tmp_path)


def test_the_published_sample_of_lvis(tmp_path: Path) -> None:
    if "TREX2_DATA" not in os.environ:
        pytest.skip("TREX2_DATA is not set")
    path = Path(os.environ["TREX2_DATA"], "lvis", "lvis_val_100.json")
    records = read_lvis(path, tmp_path)
    content = json.loads(path.read_text())
    first = content["images"][0]
    there = {item["category_id"] for item in content["annotations"] if item["image_id"] == first["id"]}
    known = (there | set(first["neg_category_ids"])) - set(first["not_exhaustive_category_ids"])
    assert records.images[0].path == tmp_path / "val2017" / "000000266409.jpg"
    assert records.images[0].judged is not None
    assert {records.category_ids[i] for i in records.images[0].judged.tolist()} == known
    assert set(records.groups) == {"rare", "common", "frequent"}
    assert sum(len(image.boxes) for image in records.images) == 977


# Roboflow


def roboflow(*categories: tuple[str, str]) -> dict[str, Any]:
    return {
        "images": [{"id": 0, "file_name": "a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": i, "name": name, "supercategory": s} for i, (name, s) in enumerate(categories)],
        "annotations": [box(0, 0, len(categories) - 1, [1, 2, 30, 20])],
    }


def test_a_category_that_only_heads_others_is_left_out(tmp_path: Path) -> None:
    content = roboflow(("cells", "none"), ("RBC", "cells"), ("WBC", "cells"))
    records = read_roboflow(written(tmp_path / "a.json", content), tmp_path)
    assert (records.names, records.category_ids) == (("RBC", "WBC"), (1, 2))
    assert records.images[0].labels.tolist() == [1]


def test_a_heading_with_boxes_is_a_category(tmp_path: Path) -> None:
    content = roboflow(("RBC", "cells"), ("cells", "none"))
    assert read_roboflow(written(tmp_path / "a.json", content), tmp_path).names == ("RBC", "cells")


def test_names_that_differ_in_case_or_spaces_alone_stay_two_categories(tmp_path: Path) -> None:
    """As `Q` and `q`, `o` and `o ` of boggleBoards."""
    content = roboflow(("Q", "none"), ("q", "none"), ("o", "none"), ("o ", "none"))
    records = read_roboflow(written(tmp_path / "a.json", content), tmp_path)
    assert records.names == ("Q", "q", "o", "o ")
    assert records.images[0].labels.tolist() == [3]


# FSC-147


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
    records = read_fsc147(tmp_path / "instances_test.json", tmp_path / "images_384_VarV2")
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
    records = read_fsc147(written(tmp_path / "instances_test.json", content), tmp_path / "images_384_VarV2")
    [image] = records.images
    assert (image.id, image.num_objects, len(image.boxes)) == (41, 4, 2)
    [other] = read_fsc147(tmp_path / "instances_val.json", tmp_path / "images_384_VarV2").images
    assert other.path.name == "2.jpg"


def test_broken_files_of_fsc147_are_named(tmp_path: Path) -> None:
    fsc147(tmp_path)
    written(tmp_path / "annotation_FSC147_384.json", {"2.jpg": {}})
    with pytest.raises(CocoError, match=r"'3\.jpg'.* in FSC-147's test split; fetch its files again"):
        read_fsc147(tmp_path / "instances_test.json", tmp_path / "images_384_VarV2")
    (tmp_path / "annotation_FSC147_384.json").unlink()
    with pytest.raises(CocoError, match=r"annotation_FSC147_384\.json: no such annotation file"):
        read_fsc147(tmp_path / "instances_test.json", tmp_path / "images_384_VarV2")


# FSCD-LVIS


def test_fscd_lvis_joins_its_two_files_by_image(tmp_path: Path) -> None:
    """Categories differ between images, but each image is of one, which its exemplars show."""
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in (5, 8)]
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [box(1, 5, 771, [1, 2, 30, 20]), box(2, 8, 12, [0, 0, 10, 10]), box(3, 8, 12, [20, 0, 10, 10])],
    }
    four = [[0, 0, 10, 10], [20, 0, 10, 10], [1, 1, 5, 5], [2, 2, 5, 5]]
    counts = {
        "images": [],
        "annotations": [
            {"id": 1, "image_id": 8, "boxes": four, "points": [[5, 5]] * 2},
            {"id": 2, "image_id": 5, "boxes": [[1, 2, 30, 20]], "points": [[16, 12]]},
        ],
    }
    file = written(tmp_path / "instances_test.json", content)
    written(tmp_path / "count_test.json", counts)
    first, second = read_fscd_lvis(file, tmp_path).images
    assert (first.num_objects, second.num_objects) == (1, 2)
    assert first.exemplars is not None and torch.equal(first.exemplars, first.boxes)  # noqa: PT018
    assert second.exemplars is not None and len(second.exemplars) == 3  # noqa: PT018
    assert second.labels.tolist() == [0, 0]
    counts["annotations"].pop()
    written(tmp_path / "count_test.json", counts)
    with pytest.raises(CocoError, match=r"count_test\.json: KeyError.5.*does not fit instances_test\.json"):
        read_fscd_lvis(file, tmp_path)
