from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.label_studio import FORMAT, read_label_studio
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.opening import read_records
from trex2_lightning.errors import InputError

Pictures = Callable[..., Path]


def box(*sides: float, name: str | None = "dog", **more: Any) -> dict[str, Any]:
    """Of an image of 40 x 30: x, y, width, height in percent."""
    value = dict(zip(("x", "y", "width", "height"), sides, strict=True)) | more
    labels = {"rectanglelabels": [name]} if name else {}
    return {"type": "rectanglelabels", "original_width": 40, "original_height": 30, "value": value | labels}


def task(image: str, *boxes: dict[str, Any], kind: str = "annotations", **more: Any) -> dict[str, Any]:
    return {"data": {"image": image}, kind: [{"result": list(boxes)} | more]}


# See test_every_format.py.
SAMPLE: Any = ({"a.json": [task("/data/upload/1/a.jpg", box(2.5, 20 / 3, 7.5, 40 / 3))]}, ["a.json"], [], ["dog"])


def read(tasks: Any, folder: Path) -> tuple[list[Annotated], Report]:
    file, report = folder.parent / "a.json", Report()
    file.write_text(json.dumps(tasks))
    return list(read_label_studio(file, ImageStore([folder]), report)), report


def test_what_people_annotated_goes_before_predictions(pictures: Pictures) -> None:
    folder = pictures("a.jpg", "b.jpg", "c.jpg")
    both = task("a.jpg", box(0, 0, 50, 50, name="cat")) | task("a.jpg", box(0, 0, 10, 10), kind="predictions")
    cancelled = task("b.jpg", box(0, 0, 10, 10), was_cancelled=True)
    cancelled |= task("b.jpg", box(50, 50, 50, 50), kind="predictions")
    emptied = task("c.jpg") | task("c.jpg", box(0, 0, 10, 10), kind="predictions")
    (first, second, third), report = read([both, cancelled, emptied], folder)
    assert (first.boxes.tolist(), first.names) == ([[0, 0, 20, 15]], ["cat"])
    assert (second.boxes.tolist(), second.names) == ([[20, 15, 40, 30]], ["dog"])
    assert third.boxes.tolist() == []
    assert report.names == ["cat", "dog"]


@pytest.mark.parametrize(
    "image",
    ["/data/local-files/?d=sub%20b/a.jpg", "/data/local-files/?d=sub b/a.jpg", "sub b/a.jpg"],
)
def test_a_file_in_a_folder_is_found_as_local_files_are_served(pictures: Pictures, image: str) -> None:
    [found], _ = read([task(image, box(0, 0, 10, 10))], pictures("sub b/a.jpg"))
    assert found.path.endswith("pictures/sub b/a.jpg")


def test_a_file_is_found_by_the_end_of_its_address(pictures: Pictures) -> None:
    [found], _ = read([task("https://x.org/some/where/a%20b.jpg?size=1", box(0, 0, 10, 10))], pictures("a b.jpg"))
    assert found.path.endswith("pictures/a b.jpg")


def test_a_box_that_was_turned_becomes_the_box_around_it(pictures: Pictures) -> None:
    """A quarter turn clockwise about its upper left corner: 20 x 6 pixels lie to the left of it, 6 wide and 20 high."""
    [found], _ = read([task("a.jpg", box(50, 10, 50, 20, rotation=90))], pictures("a.jpg"))
    assert found.boxes[0].tolist() == pytest.approx([14, 3, 20, 23])


def test_boxes_that_are_none_are_counted(pictures: Pictures) -> None:
    odd = [box(0, 0, 10, 10, name=None), box("x", 0, 10, 10), {"type": "choices", "value": {"choices": ["x"]}}]  # type: ignore[arg-type]
    [found], report = read([task("a.jpg", box(0, 0, 10, 10), *odd)], pictures("a.jpg"))
    assert len(found.boxes) == 1
    assert report.counts == {
        "box without a name: its image judges nothing": 1,
        "box that is not four finite numbers": 1,
    }


def test_boxes_in_shares_are_refused_where_percent_are_meant(pictures: Pictures) -> None:
    tasks = [task("a.jpg", box(0.1, 0.2, 0.5, 0.8)), task("b.jpg", box(0, 0, 1, 1))]
    with pytest.raises(InputError, match=r"so they are shares of it; Label Studio has percent: multiply them by 100$"):
        read(tasks, pictures("a.jpg", "b.jpg"))
    tasks[0] = task("a.jpg", box(0.1, 0.2, 0.5, 0.81))
    assert len(read(tasks, pictures())[0]) == 2


def test_an_image_with_other_regions_than_rectangles_judges_nothing(pictures: Pictures) -> None:
    brush = {"type": "brushlabels", "original_width": 40, "original_height": 30, "value": {"brushlabels": ["dog"]}}
    [found], report = read([task("a.jpg", box(0, 0, 10, 10), brush)], pictures("a.jpg"))
    assert (len(found.boxes), found.judged) == (1, [])
    assert report.counts == {"region that is no rectangle: its image judges nothing": 1}


def test_a_task_that_nobody_annotated_is_left_out(pictures: Pictures) -> None:
    tasks = [task("a.jpg", box(0, 0, 10, 10)), {"data": {"image": "b.jpg"}, "annotations": []}]
    [found], report = read(tasks, pictures("a.jpg", "b.jpg"))
    assert (Path(found.path).name, report.counts) == ("a.jpg", {"task that nobody annotated: left out": 1})


def test_it_is_read_without_an_index_where_tasks_say_their_size(pictures: Pictures) -> None:
    folder, file = pictures(), pictures().parent / "a.json"
    empty = {"data": {"image": "b.jpg", "width": 40, "height": 30}, "annotations": [{"result": []}]}
    file.write_text(json.dumps([task("a.jpg", box(25, 50, 25, 50)) | {"id": 7}, empty]))
    records = read_records(file, folder.parent, FORMAT)
    assert [(image.id, image.width, image.height, image.boxes.tolist()) for image in records.images] == [
        (7, 40, 30, [[10, 15, 20, 30]]), (1, 40, 30, [])
    ]  # fmt: skip
    file.write_text(json.dumps([{"data": {"image": "b.jpg"}, "annotations": [{"result": []}]}]))
    with pytest.raises(InputError, match="task 0: image without width and height; correct or remove it"):
        read_records(file, folder.parent, FORMAT)


@pytest.mark.parametrize(
    ("content", "message"),
    [({"images": []}, "not a JSON list"), ([{"image": "a.jpg", "label": []}], "export from Label Studio as JSON, not")],
)
def test_another_export(pictures: Pictures, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(content, pictures("a.jpg"))
