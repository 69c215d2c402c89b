from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.odvg import read_odvg
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Pictures = Callable[..., Path]
NAMES = {"0": "cat", "1": "dog"}

# See test_every_format.py.
INSTANCE = {"bbox": [1, 2, 4, 6], "label": 1, "category": "dog"}
LINE = {"filename": "a.jpg", "width": 40, "height": 30, "detection": {"instances": [INSTANCE]}}
SAMPLE: Any = ({"a.jsonl": LINE, "map.json": {"1": "dog"}}, ["a.jsonl"], ["--label-map", "map.json"], ["dog"])


def detection(name: str = "a.jpg", **changes: Any) -> dict[str, Any]:
    instance = {"bbox": [1, 2, 5, 6], "label": 1, "category": "dog"} | changes
    return {"filename": name, "height": 30, "width": 40, "detection": {"instances": [instance]}}


def grounding(*regions: dict[str, Any]) -> dict[str, Any]:
    caption = "a man and two dogs"
    return {"filename": "b.jpg", "height": 30, "width": 40, "grounding": {"caption": caption, "regions": list(regions)}}


def read(lines: list[Any], folder: Path, label_map: Any = None) -> tuple[list[Annotated], Report]:
    path, names = folder.parent / "a.jsonl", folder.parent / "map.json"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    names.write_text(json.dumps(label_map))
    report = Report()
    return list(read_odvg(path, ImageStore([folder]), report, names if label_map else None)), report


def test_detection_with_and_without_a_label_map(pictures: Pictures) -> None:
    [image], report = read([detection()], pictures("a.jpg"), NAMES)
    assert (image.boxes.tolist(), image.names, image.judged) == ([[1, 2, 5, 6]], ["dog"], None)
    assert report.names == ["cat", "dog"]
    [image], report = read([detection(category=" big  dog")], pictures("a.jpg"))
    assert (image.names, report.names) == (["big dog"], [])
    assert image.judged == ["big dog"]  # what other lines name, this one may have too


@pytest.mark.parametrize(
    ("label", "category", "name", "told"),
    [
        (2, "dog", "dog", "the category"),  # labels counted from one
        (1, "cat", "cat", "the category"),
        ("1", "dog", "dog", ""),
        (1, "Dog_", "dog", ""),
        (0, "puss", "cat", "the label's name"),
    ],
)
def test_a_label_that_its_category_contradicts(
    pictures: Pictures, label: Any, category: str, name: str, told: str
) -> None:
    [image], report = read([detection(label=label, category=category)], pictures("a.jpg"), NAMES)
    reason = f"box whose label and category are different names: {told} is taken"
    assert (image.names, report.counts) == ([name], {reason: 1} if told else {})


def test_labels_that_count_from_one_are_refused(pictures: Pictures) -> None:
    lines = [detection("a.jpg", label=1, category=None), detection("b.jpg", label=2, category=None)]
    with pytest.raises(InputError, match=r"its labels go from 1 to 2, those of .*map\.json from 0 to 1, so each"):
        read(lines, pictures("a.jpg", "b.jpg"), NAMES)


def test_labels_are_refused_that_count_from_another_number_than_the_map_does(pictures: Pictures) -> None:
    lines = [detection("a.jpg", label=0, category=None), detection("b.jpg", label=1, category=None)]
    with pytest.raises(InputError, match=r"its labels go from 0 to 1, those of .*map\.json from 1 to 2, so each"):
        read(lines, pictures("a.jpg", "b.jpg"), {"1": "cat", "2": "dog"})


def test_labels_alone_are_refused_where_those_with_a_category_contradict_the_map(pictures: Pictures) -> None:
    lines = [detection("a.jpg", label=1, category="cat"), detection("b.jpg", label=1, category=None)]
    with pytest.raises(InputError, match="so each would have its neighbour's name"):
        read(lines, pictures("a.jpg", "b.jpg"), NAMES)
    [_, second], _ = read([*lines[1:], detection("a.jpg", label=0, category="cat")], pictures(), NAMES)
    assert second.names == ["cat"]


def test_a_label_and_a_category_that_nobody_knows(pictures: Pictures) -> None:
    [image], report = read([detection(label=7, category="cow")], pictures("a.jpg"), NAMES)
    assert (image.names, report.counts) == ([], {"box of an unknown category": 1})


def test_a_caption_judges_its_own_phrases(pictures: Pictures) -> None:
    line = grounding(
        {"bbox": [1, 2, 5, 6], "phrase": "a man", "tokens_positive": [[0, 5]]},
        {"bbox": [[6, 6, 9, 9], [10, 10, 12, 12]], "phrase": ["two dogs", "dogs"], "tokens_positive": [[10, 18]]},
    )
    [image], report = read([line], pictures("b.jpg"))
    assert image.names == ["a man", "two dogs", "dogs", "two dogs", "dogs"]
    assert image.boxes[:, 0].tolist() == [1, 6, 6, 10, 10]
    assert image.judged == ["a man", "two dogs", "dogs"]
    assert report.counts == {"region of several phrases: its boxes are listed under each": 1}


DEFECTS: dict[str, Any] = {
    "image file missing": detection("gone.jpg"),
    "image without a file name": detection("") | {"filename": None},
    "image without width and height": detection() | {"height": -3},
    "image given twice: the first is used": detection("c.jpg"),
    "line that is not JSON": b'{"filename": "a.jpg", ',
    "line that is not UTF-8": json.dumps(detection("\xe9.jpg"), ensure_ascii=False).encode("latin-1"),
    "line that is not a JSON object": [1],
    "line without 'detection' and 'grounding'": {"filename": "a.jpg", "height": 30, "width": 40},
    "box of an unknown category": detection(label=7, category=None),
    "box outside its image": detection(bbox=[50, 2, 60, 6]),
    "box that reached out of its image: clipped": detection(bbox=[30, 2, 60, 6]),
    "box without area": detection(bbox=[5, 2, 5, 6]),
    "box that is not four finite numbers": detection(bbox=[5, 2, 5]),
    "box that is not a JSON object": detection() | {"detection": {"instances": [3]}},
    "box without a phrase": grounding({"bbox": [1, 2, 5, 6], "phrase": " "}),
}


@pytest.mark.parametrize("reason", DEFECTS)
def test_every_defect_is_counted_and_takes_nothing_else(pictures: Pictures, reason: str) -> None:
    images, report = read([detection("c.jpg"), DEFECTS[reason]], pictures("a.jpg", "b.jpg", "c.jpg"), NAMES)
    assert report.counts == {reason: 1}
    assert "line 2" in report.examples[reason]
    assert images[0].boxes.tolist() == [[1, 2, 5, 6]]


@pytest.mark.parametrize("lines", [[b"\xff\xfe"], [b"<xml>", b"</xml>"], [3]])
def test_a_file_without_one_good_line_is_refused(pictures: Pictures, lines: list[Any]) -> None:
    with pytest.raises(InputError, match="no line is a JSON object; give"):
        read(lines, pictures("a.jpg"))


@pytest.mark.parametrize("label_map", [["cat"], {"x": "cat"}, 3])
def test_a_label_map_that_is_none(pictures: Pictures, label_map: Any) -> None:
    with pytest.raises(InputError, match=r"map\.json: not a label map; give JSON like"):
        read([detection()], pictures("a.jpg"), label_map)
