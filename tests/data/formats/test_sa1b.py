from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coco_files import BOX, SIZED

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.sa1b import read_sa1b
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

Pictures = Callable[..., Path]

# See test_every_format.py.
SAMPLE: Any = (
    {"labels/a.json": {"image": SIZED, "annotations": [BOX | {"category": "x"}]}},
    ["labels"],
    ["--more-than", "0"],
    [],
)


def thing(category: Any = "x", x: float = 1, **changes: Any) -> dict[str, Any]:
    own = {"id": 5, "predicted_iou": 0.9, "stability_score": 0.9, "segmentation": {"size": [30, 40], "counts": "x"}}
    return {"bbox": [x, 2, 4, 5], "area": 12, "category": category, **own} | changes


def image(*things: Any, name: Any = "sa_1.jpg", **changes: Any) -> dict[str, Any]:
    own = {"image_id": 1, "file_name": name, "width": 40, "height": 30} | changes
    return {"image": own, "annotations": list(things) or [thing(), thing(x=9), thing(3)]}


def read(files: dict[str, Any], folder: Path, more_than: int = 1) -> tuple[list[Annotated], Report]:
    place, report = folder.parent / "labels", Report()
    for name, content in files.items():
        path = place / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return list(read_sa1b(place, ImageStore([folder]), report, more_than)), report


def test_categories_are_keys_of_one_image(pictures: Pictures) -> None:
    files = {"0/sa_1": image(), "1/sa_2": image(thing(3), thing(3, x=9), name="sa_2.jpg")}
    (first, second), report = read(files, pictures("sa_1.jpg", "sa_2.jpg"))
    assert (first.names, second.names) == (["x", "x", "3"], ["3", "3"])
    assert first.boxes.tolist() == [[1, 2, 5, 7], [9, 2, 13, 7], [1, 2, 5, 7]]
    assert (first.area.tolist(), report.nameless, report.names, report.counts) == ([12, 12, 12], True, [], {})


def test_an_image_needs_several_of_a_category(pictures: Pictures) -> None:
    files = {"sa_1": image(), "sa_2": image(thing("x"), thing("y"), name="sa_2.jpg")}
    folder = pictures("sa_1.jpg", "sa_2.jpg")
    images, report = read(files, folder)
    assert ([len(some.boxes) for some in images], report.counts) == (
        [3],
        {"image without a category of more than 1": 1},
    )
    assert len(read(files, folder, 0)[0]) == 2


DEFECTS: dict[str, Any] = {
    "image file missing": image(name="gone.jpg"),
    "image given twice: the first is used": image(),
    "image without width and height": image(name="b.jpg", width=-1),
    "annotation file that is not JSON in UTF-8": b"{",
    "annotation file without an image": {"annotations": []},
    "box without a category": image(thing(), thing(x=9), thing(None), name="b.jpg"),
    "box outside its image": image(thing(), thing(x=9), thing(x=50), name="b.jpg"),
    "box that reached out of its image: clipped": image(thing(), thing(x=9), thing(x=38), name="b.jpg"),
    "box without area": image(thing(), thing(x=9), thing(bbox=[1, 2, 0, 3]), name="b.jpg"),
    "box that is not four finite numbers": image(thing(), thing(x=9), thing(bbox=[1, 2, "3"]), name="b.jpg"),
    "box that is not a JSON object": image(thing(), thing(x=9), 3, name="b.jpg"),
}


@pytest.mark.parametrize("reason", DEFECTS)
def test_every_defect_is_counted_and_takes_nothing_else(pictures: Pictures, reason: str) -> None:
    images, report = read({"sa_1": image(), "sa_9": DEFECTS[reason]}, pictures("sa_1.jpg", "b.jpg"))
    assert report.counts == {reason: 1}
    assert "sa_9.json" in report.examples[reason]
    assert images[0].names == ["x", "x", "3"]


@pytest.mark.parametrize("text", [b'{"image": "\xff"}', b"", b"[" * 100_000])
def test_a_broken_file_is_counted(pictures: Pictures, text: bytes) -> None:
    _, report = read({"sa_1": image(), "sa_2": text}, pictures("sa_1.jpg"))
    assert report.counts == {"annotation file that is not JSON in UTF-8": 1}


def test_an_area_that_is_none_is_the_box_s(pictures: Pictures) -> None:
    files = {"sa_1": image(thing(area=10**400), thing(area="1"), thing())}
    [some], _ = read(files, pictures("sa_1.jpg"))
    assert some.area.tolist() == [20, 20, 12]


def test_a_folder_without_files_is_refused(pictures: Pictures) -> None:
    with pytest.raises(InputError, match="no folder with JSON files; give the one with SA-1B's"):
        list(read_sa1b(pictures("a.jpg"), ImageStore([pictures("a.jpg")]), Report()))
