from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from coco_files import box, one_box, written

from trex2_lightning.data.formats.fsdet import FORMAT, NOVEL
from trex2_lightning.data.opening import is_there, open_records, read_records
from trex2_lightning.errors import InputError

# See test_every_format.py.
SAMPLE: Any = ({"shot_dog_x.json": one_box()}, ["shot_*_x.json"], [], ["dog"])

CATEGORIES = [{"id": 17, "name": "cat"}, {"id": 10, "name": "traffic light"}, {"id": 72, "name": "tv"}]


def shots(category: int, *image_ids: int) -> dict[str, Any]:
    """A file of FsDet's: boxes of one category, and the names of all."""
    images = [
        {"id": i, "file_name": f"COCO_{'val' if i % 2 else 'train'}2014_{i:012}.jpg", "height": 40, "width": 60}
        for i in dict.fromkeys(image_ids)
    ]
    boxes = [box(100 * category + n, image, category, [n, 2, 9, 9]) for n, image in enumerate(image_ids)]
    return {"info": {}, "licenses": [], "images": images, "annotations": boxes, "categories": CATEGORIES}


def support(folder: Path) -> Path:
    """Three boxes of a cat in two images, two of a traffic light, one of a tv; image 2 is in all files."""
    for name, content in {"cat": shots(17, 2, 2, 3), "traffic light": shots(10, 2, 5), "tv": shots(72, 2)}.items():
        written(folder / f"full_box_3shot_{name}_trainval.json", content)
    written(folder / "full_box_1shot_cat_trainval.json", shots(17, 8))
    return folder / "full_box_3shot_*_trainval.json"


def test_the_files_of_all_categories_are_joined_by_image(tmp_path: Path) -> None:
    records = open_records(support(tmp_path), tmp_path, FORMAT)
    assert (records.names, records.category_ids) == (("cat", "traffic light", "tv"), (17, 10, 72))
    labels = {image.id: sorted(image.labels.tolist()) for image in records.images}
    assert labels == {2: [0, 0, 1, 2], 3: [0], 5: [1]}
    paths = {image.id: image.path.relative_to(tmp_path).as_posix() for image in records.images}
    assert paths[2] == "train2014/COCO_train2014_000000000002.jpg"
    assert paths[5] == "val2014/COCO_val2014_000000000005.jpg"


def test_a_single_file_is_read_with_its_groups(tmp_path: Path) -> None:
    records = open_records(written(tmp_path / "5k.json", shots(17, 2, 3)), tmp_path, FORMAT)
    assert (len(records.images), records.groups) == (2, ("novel", "base", "novel"))


def test_the_novel_categories_are_pascal_voc_s() -> None:
    assert len(set(NOVEL)) == 20


def test_a_category_without_a_file_is_told_with_where_to_get_it(tmp_path: Path) -> None:
    pattern = support(tmp_path)
    assert is_there(pattern)
    (tmp_path / "full_box_3shot_tv_trainval.json").unlink()
    fetch = r": fetch cocosplit/ from http://dl\.yf\.io/fs-det/datasets/, or make it with FsDet's prepare_coco"
    with pytest.raises(InputError, match=rf"has no full_box_3shot_tv_trainval\.json{fetch}"):
        read_records(pattern, tmp_path, FORMAT)
    (tmp_path / "full_box_3shot_cat_trainval.json").unlink()
    with pytest.raises(InputError, match=rf"has no full_box_3shot_cat_trainval\.json nor 1 more{fetch}"):
        read_records(pattern, tmp_path, FORMAT)
    (tmp_path / "full_box_3shot_traffic light_trainval.json").unlink()
    assert not is_there(pattern)
    with pytest.raises(InputError, match=rf"has no full_box_3shot_\*_trainval\.json{fetch}"):
        read_records(pattern, tmp_path, FORMAT)


def test_what_one_file_has_twice_is_refused(tmp_path: Path) -> None:
    pattern = support(tmp_path)
    content = shots(72, 9)
    written(tmp_path / "full_box_3shot_tv_trainval.json", content | {"images": content["images"] * 2})
    with pytest.raises(InputError, match=r"tv_trainval\.json: image 9: image id given twice; correct or remove it"):
        read_records(pattern, tmp_path, FORMAT)


def test_ids_may_be_text_in_some_of_the_files(tmp_path: Path) -> None:
    pattern = support(tmp_path)
    of_numbers = open_records(pattern, tmp_path, FORMAT)
    content = json.loads((tmp_path / "full_box_3shot_tv_trainval.json").read_text())
    for entry in (*content["images"], *content["annotations"], *content["categories"]):
        entry |= {key: str(entry[key]) for key in ("id", "image_id", "category_id") if key in entry}
    written(tmp_path / "full_box_3shot_tv_trainval.json", content)
    of_text = open_records(pattern, tmp_path, FORMAT)
    assert of_text.category_ids == of_numbers.category_ids
    assert [(i.id, i.labels.tolist()) for i in of_text.images] == [(i.id, i.labels.tolist()) for i in of_numbers.images]


def test_a_pattern_wants_its_image_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: no such image folder; set data\.root="):
        read_records(support(tmp_path), tmp_path / "gone", FORMAT)
