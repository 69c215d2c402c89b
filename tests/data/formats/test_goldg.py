from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coco_files import BOX, SIZED

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.goldg import read_goldg
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Pictures = Callable[..., Path]

# See test_every_format.py.
CAPTION = {"caption": "a dog", "tokens_negative": [[0, 5]]}
SAMPLE: Any = (
    {"a.json": {"images": [SIZED | CAPTION], "annotations": [BOX | {"tokens_positive": [[2, 5]]}]}},
    ["a.json"],
    [],
    ["dog"],
)


def content() -> dict[str, Any]:
    """As MDETR's files are: an entry of `images` is a caption, and all boxes are of one category."""
    man, dogs = {"tokens_positive": [[0, 5]]}, {"tokens_positive": [[10, 14], [19, 25]]}
    common = {"category_id": 1, "iscrowd": 0, "area": 9.5}
    return {
        "info": [],
        "images": [
            {"id": 1, "file_name": "7.jpg", "width": 40, "height": 30, "caption": "a man, two  of his dogs"},
            {
                "id": 2,
                "file_name": "7.jpg",
                "width": 40,
                "height": 30,
                "caption": "A man. ",
                "tokens_negative": [[0, 6]],
            },
            {"id": 3, "file_name": "COCO_train2014_000000000009.jpg", "width": 40, "height": 30, "caption": "sky"},
        ],
        "annotations": [
            {"id": 0, "image_id": 1, "bbox": [1, 2, 3, 4], **common, **man},
            {"id": 1, "image_id": 1, "bbox": [10, 2, 8, 4], **common, "tokens_positive": [[7, 10], [19, 23]]},
            {"id": 2, "image_id": 2, "bbox": [1, 2, 3, 4], **common, **man},
            {"id": 3, "image_id": 1, "bbox": [20, 2, 8, 4], **common, "tokens_positive": [[19, 23], [7, 10]]},
        ],
        "categories": [{"id": 1, "name": "object"}],
        "unused": dogs,
    }


def read(value: Any, folder: Path) -> tuple[list[Annotated], Report]:
    path, report = folder.parent / "a.json", Report()
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return list(read_goldg(path, ImageStore([folder]), report)), report


def test_a_caption_is_an_image_that_judges_its_own_phrases(pictures: Pictures) -> None:
    images, report = read(content(), pictures("7.jpg", "000000000009.jpg"))
    assert [image.names for image in images] == [["a man", "two dogs", "two dogs"], ["A man"], []]
    assert [image.judged for image in images] == [["a man", "two dogs"], ["A man"], []]
    assert images[0].boxes.tolist() == [[1, 2, 4, 6], [10, 2, 18, 6], [20, 2, 28, 6]]
    assert images[0].path == images[1].path
    assert [image.id for image in images] == [1, 2, 3]
    assert Path(images[2].path).name == "000000000009.jpg"  # as COCO calls it since 2017
    assert (report.names, report.counts) == ([], {})  # an open vocabulary


def test_lists_may_come_in_any_order(pictures: Pictures) -> None:
    folder = pictures("7.jpg", "000000000009.jpg")
    expected, _ = read(content(), folder)
    images, _ = read(dict(reversed(content().items())), folder)
    assert [image.names for image in images] == [image.names for image in expected]


DEFECTS: dict[str, tuple[Callable[[dict[str, Any]], Any], int]] = {
    "image file missing": (lambda v: v["images"][1].update(file_name="gone.jpg"), 3),
    "image without a file name": (lambda v: v["images"][1].pop("file_name"), 3),
    "image without a caption": (lambda v: v["images"][1].update(caption=None), 3),
    "image id given twice: the first is used": (lambda v: v["images"].append(dict(v["images"][0], caption="x")), 4),
    "annotation of an unknown image": (lambda v: v["annotations"][2].update(image_id=99), 3),
    "annotation id given twice: the first is used": (lambda v: v["annotations"][2].update(id=0), 3),
    "box of an unknown category": (lambda v: v["annotations"][2].pop("category_id"), 3),
    "box outside its image": (lambda v: v["annotations"][2].update(bbox=[41, 0, 5, 5]), 3),
    "box that reached out of its image: clipped": (lambda v: v["annotations"][2].update(bbox=[30, 0, 15, 5]), 4),
    "box without area": (lambda v: v["annotations"][2].update(bbox=[3, 3, 0, 5]), 3),
    "box that is not four finite numbers": (lambda v: v["annotations"][2].update(bbox=[3, 3, 5]), 3),
}
PHRASES: list[Any] = [None, [], [[0, 99]], [[5, 0]], [[-5, 0]], [[0, "5"]], [[0, 5], [5]], [[5, 6]], "0,5"]


@pytest.mark.parametrize("reason", DEFECTS)
def test_every_defect_is_counted_and_takes_nothing_else(pictures: Pictures, reason: str) -> None:
    edit, boxes_left = DEFECTS[reason]
    value = content()
    edit(value)
    images, report = read(value, pictures("7.jpg", "000000000009.jpg"))
    assert report.counts == {reason: 1}
    assert report.examples[reason]
    assert sum(len(image.boxes) for image in images) == boxes_left


@pytest.mark.parametrize("tokens", PHRASES)
def test_a_box_without_words_is_counted(pictures: Pictures, tokens: Any) -> None:
    value = content()
    value["images"][1]["caption"] = "A man "
    value["annotations"][2]["tokens_positive"] = tokens
    images, report = read(value, pictures("7.jpg", "000000000009.jpg"))
    assert report.counts == {"box without a phrase in its caption": 1}
    assert (images[1].names, images[1].judged, len(images[1].boxes)) == ([], [], 0)


@pytest.mark.parametrize("text", [b"", b"[]", b'{"images": [{"id": 1, "caption": "\xff"}]}', b'{"annotations": []}'])
def test_what_is_no_such_file_is_refused_in_one_line(pictures: Pictures, text: bytes) -> None:
    with pytest.raises(InputError, match=r"^.*a\.json: .*; give (the|an) annotation file[^\n]*$"):
        read(text, pictures("7.jpg"))
