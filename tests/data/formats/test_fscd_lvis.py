from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from coco_files import box, one_box, written

from trex2_lightning.data.formats.fscd_lvis import FORMAT
from trex2_lightning.data.opening import read_records
from trex2_lightning.errors import InputError

# See test_every_format.py.
SHOWN = {"image_id": 1, "boxes": [[1, 2, 3, 4]], "points": [[2, 3]]}
SAMPLE: Any = (
    {"instances_test.json": one_box(), "count_test.json": {"annotations": [SHOWN]}},
    ["instances_test.json"],
    [],
    ["object"],
)


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
    first, second = read_records(file, tmp_path, FORMAT).images
    assert (first.num_objects, second.num_objects) == (1, 2)
    assert first.exemplars is not None and torch.equal(first.exemplars, first.boxes)  # noqa: PT018
    assert second.exemplars is not None and len(second.exemplars) == 3  # noqa: PT018
    assert second.labels.tolist() == [0, 0]
    counts["annotations"] = [one | {"image_id": str(one["image_id"])} for one in counts["annotations"]]
    written(tmp_path / "count_test.json", counts)
    assert [image.num_objects for image in read_records(file, tmp_path, FORMAT).images] == [1, 2]
    counts["annotations"].pop()
    written(tmp_path / "count_test.json", counts)
    with pytest.raises(InputError, match=r"count_test\.json: has no image 5, so it does not fit instances_test\.json"):
        read_records(file, tmp_path, FORMAT)
