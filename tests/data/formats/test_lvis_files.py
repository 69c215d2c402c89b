from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from coco_files import box, one_box, written

from trex2_lightning.data.formats.lvis import FORMAT
from trex2_lightning.data.opening import read_records
from trex2_lightning.errors import InputError

# See test_every_format.py.
FEDERATED = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
SAMPLE: Any = ({"a.json": one_box(**FEDERATED)}, ["a.json"], [], ["dog"])


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
    records = read_records(written(tmp_path / "lvis.json", lvis()), tmp_path, FORMAT)
    [image] = records.images
    assert image.path == tmp_path / "train2017" / "000000391895.jpg"
    assert image.judged is not None
    assert (image.labels.tolist(), image.judged.tolist()) == ([0], [1])
    assert records.names == ("stop sign", "cap (headwear)", "acorn")
    assert records.groups == ("frequent", "rare", "common")
    assert records.category_ids == (3, 7, 9)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"neg_category_ids": [99]}, "judged category that is unknown"),
        ({"not_exhaustive_category_ids": None}, "image that does not say which categories it judges"),
    ],
)
def test_lvis_without_its_fields_is_refused(tmp_path: Path, image: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=rf"lvis\.json: image 391895: {reason}; correct or remove it"):
        read_records(written(tmp_path / "lvis.json", lvis(**image)), tmp_path, FORMAT)


def test_the_published_sample_of_lvis(tmp_path: Path) -> None:
    if "TREX2_DATA" not in os.environ:
        pytest.skip("TREX2_DATA is not set")
    path = Path(os.environ["TREX2_DATA"], "lvis", "lvis_val_100.json")
    records = read_records(path, tmp_path, FORMAT)
    content = json.loads(path.read_text())
    first = content["images"][0]
    there = {item["category_id"] for item in content["annotations"] if item["image_id"] == first["id"]}
    known = (there | set(first["neg_category_ids"])) - set(first["not_exhaustive_category_ids"])
    assert records.images[0].path == tmp_path / "val2017" / "000000266409.jpg"
    assert records.images[0].judged is not None
    assert {records.category_ids[i] for i in records.images[0].judged.tolist()} == known
    assert set(records.groups) == {"rare", "common", "frequent"}
    assert sum(len(image.boxes) for image in records.images) == 977
