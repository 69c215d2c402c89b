from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.hiertext import read_hiertext
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Pictures = Callable[..., Path]

# See test_every_format.py.
WORD = {"vertices": [[1, 2], [4, 2], [4, 6], [1, 6]], "legible": True}
PAGE = {"image_id": "a", "image_width": 40, "image_height": 30, "paragraphs": [{"lines": [{"words": [WORD]}]}]}
SAMPLE: Any = ({"a.jsonl": {"annotations": [PAGE]}}, ["a.jsonl"], ["--level", "word"], ["word"])


def square(x: float, side: float = 4, *, legible: Any = True, **inner: Any) -> dict[str, Any]:
    return {"vertices": [[x, 2], [x + side, 2], [x + side, 6], [x, 6]], "legible": legible, "text": "a", **inner}


def entry(name: Any = "a", *words: Any, **changes: Any) -> dict[str, Any]:
    given = list(words) or [square(1), square(11, legible=False)]
    lines = [square(1, 14, legible=False, words=given), square(20, words=[])]
    paragraphs = [square(0, 30, lines=lines)]
    return {"image_id": name, "image_width": 40, "image_height": 30, "paragraphs": paragraphs} | changes


def read(value: Any, folder: Path, level: str = "word", name: str = "train.jsonl") -> tuple[list[Annotated], Report]:
    path, report = folder.parent / name, Report()
    content = {"info": {"version": "1"}, "annotations": value} if isinstance(value, list) else value
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return list(read_hiertext(path, ImageStore([folder]), report, level)), report


@pytest.mark.parametrize(
    ("level", "name", "left", "ignored"),
    [
        ("word", "word", [1, 11], [False, True]),
        ("line", "line of text", [1, 20], [True, False]),
        ("paragraph", "paragraph", [0], [False]),
    ],
)
def test_boxes_of_one_level_and_what_cannot_be_read_is_ignored(
    pictures: Pictures, level: str, name: str, left: list[int], ignored: list[bool]
) -> None:
    [image], report = read([entry()], pictures("a.jpg"), level, "train.jsonl.gz")
    assert (image.boxes[:, 0].tolist(), image.crowd.tolist()) == (left, ignored)
    assert image.boxes[:, 1::2].tolist() == [[2, 6]] * len(left)
    assert (set(image.names), report.names, image.judged) == ({name}, [name], None)
    assert report.counts == {}


DEFECTS: dict[str, Any] = {
    "image file missing": entry("gone"),
    "image without a file name": entry(None),
    "image without width and height": entry("b", image_width=0),
    "image given twice: the first is used": entry(),
    "box outside its image": entry("b", square(50)),
    "box that reached out of its image: clipped": entry("b", square(38)),
    "box without area": entry("b", square(3, 0)),
    "box that is not four finite numbers": entry("b", square(3) | {"vertices": [[1, 2], [3]]}),
    "box that is not a JSON object": entry("b", 7),
    "image without its lists of texts": entry("b", paragraphs=None),
}
VERTICES: list[Any] = [None, [], [[1, "2"]], [[1, 10**400]], [[1, float("nan")]], [1, 2]]


@pytest.mark.parametrize("reason", DEFECTS)
def test_every_defect_is_counted_and_takes_nothing_else(pictures: Pictures, reason: str) -> None:
    images, report = read([entry(), DEFECTS[reason]], pictures("a.jpg", "b.jpg"))
    assert report.counts == {reason: 1}
    assert report.examples[reason]
    assert images[0].boxes[:, 0].tolist() == [1, 11]


@pytest.mark.parametrize("vertices", VERTICES)
def test_vertices_that_are_no_places(pictures: Pictures, vertices: Any) -> None:
    _, report = read([entry("a", square(1) | {"vertices": vertices})], pictures("a.jpg"))
    assert report.counts == {"box that is not four finite numbers": 1}


def test_an_image_that_does_not_say_its_size_is_asked(pictures: Pictures) -> None:
    without = entry()
    del without["image_width"]
    [image], _ = read([without], pictures("a.jpg"))
    assert (image.width, image.height) == (40, 30)


def test_a_damaged_gzip_file_is_refused(pictures: Pictures) -> None:
    whole = gzip.compress(json.dumps({"annotations": [entry()] * 50}).encode())
    for text in (whole[:-9], whole[:30] + bytes(40) + whole[70:], b"no gzip"):
        path = pictures("a.jpg").parent / "b.jsonl.gz"
        path.write_bytes(text)
        with pytest.raises(InputError, match=r"b\.jsonl\.gz: not JSON with lists"):
            list(read_hiertext(path, ImageStore([path.parent]), Report()))


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"annotations": [{"image_id": "\xff"}]}', b'{"annotations": [{'])
def test_what_is_no_such_file_is_refused_in_one_line(pictures: Pictures, text: bytes) -> None:
    with pytest.raises(InputError, match=r"^.*train\.jsonl: .*; give (the|an) annotation file[^\n]*$"):
        read(text, pictures("a.jpg"))
