from __future__ import annotations

from pathlib import Path
from typing import Any

from coco_files import box, one_box, written

from trex2_lightning.data.formats.roboflow import FORMAT
from trex2_lightning.data.opening import read_records

# See test_every_format.py.
SAMPLE: Any = ({"a.json": one_box()}, ["a.json"], [], ["dog"])


def roboflow(*categories: tuple[str, str]) -> dict[str, Any]:
    return {
        "images": [{"id": 0, "file_name": "a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": i, "name": name, "supercategory": s} for i, (name, s) in enumerate(categories)],
        "annotations": [box(0, 0, len(categories) - 1, [1, 2, 30, 20])],
    }


def test_a_category_that_only_heads_others_is_left_out(tmp_path: Path) -> None:
    content = roboflow(("cells", "none"), ("RBC", "cells"), ("WBC", "cells"))
    records = read_records(written(tmp_path / "a.json", content), tmp_path, FORMAT)
    assert (records.names, records.category_ids) == (("RBC", "WBC"), (1, 2))
    assert records.images[0].labels.tolist() == [1]


def test_a_heading_with_boxes_is_a_category(tmp_path: Path) -> None:
    content = roboflow(("RBC", "cells"), ("cells", "none"))
    assert read_records(written(tmp_path / "a.json", content), tmp_path, FORMAT).names == ("RBC", "cells")


def test_names_that_differ_in_case_or_spaces_alone_stay_two_categories(tmp_path: Path) -> None:
    """As `Q` and `q`, `o` and `o ` of boggleBoards."""
    content = roboflow(("Q", "none"), ("q", "none"), ("o", "none"), ("o ", "none"))
    records = read_records(written(tmp_path / "a.json", content), tmp_path, FORMAT)
    assert records.names == ("Q", "q", "o", "o ")
    assert records.images[0].labels.tolist() == [3]
