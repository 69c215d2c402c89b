from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.yolo import read_yolo
from trex2_lightning.errors import InputError

DATA = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  2: dog\n"


# See test_every_format.py.
SAMPLE: Any = (
    {"data.yaml": "train: images\nnames: [dog]\n", "labels/a.txt": "0 0.0625 .1333 .075 .1333"},
    ["data.yaml"],
    ["--split", "train"],
    ["dog"],
)


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Path]:
    """Writes data.yaml and images with their labels, None for an image without a file of labels."""

    def write(labels: dict[str, str | bytes | None], data: str = DATA) -> Path:
        for folder in ("images", "labels"):
            (tmp_path / folder / "train").mkdir(parents=True)
        for name, text in labels.items():
            Image.new("RGB", (40, 30)).save(tmp_path / "images" / "train" / f"{name}.jpg")
            if text is not None:
                content = text if isinstance(text, bytes) else text.encode()
                (tmp_path / "labels" / "train" / f"{name}.txt").write_bytes(content)
        (tmp_path / "data.yaml").write_text(data)
        return tmp_path / "data.yaml"

    return write


def read(data: Path, split: str = "train") -> tuple[list[Annotated], Report]:
    report = Report()
    return list(read_yolo(data, report, split)), report


def test_boxes_and_polygons_are_shares_of_the_image(dataset: Callable[..., Path]) -> None:
    data = dataset({"a": "0 0.5 0.5 0.5 0.2\n2 0.1 0.1 0.5 0.2 0.3 0.9\n", "b": ""})
    (first, second), report = read(data)
    assert first.boxes.tolist() == [pytest.approx([10, 12, 30, 18]), pytest.approx([4, 3, 20, 27])]
    assert (first.names, first.width, first.height) == (["cat", "dog"], 40, 30)
    assert len(second.boxes) == 0
    assert (report.names, report.category_ids, report.counts) == (["cat", "dog"], [0, 2], {})


@pytest.mark.parametrize(
    "data",
    [
        "train: ../train/images\nnames: [cat]",  # Roboflow, whose path leads astray
        "train: train/images\nnames: {0: cat}",
        "train: [train/images]\nnames: [cat]",
        "path: train\ntrain: list.txt\nnames: [cat]",
    ],
)
def test_the_ways_to_name_a_split(tmp_path: Path, data: str) -> None:
    root = tmp_path / "set"
    for folder in ("images", "labels"):
        (root / "train" / folder).mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(root / "train" / "images" / "a.png")
    (root / "train" / "labels" / "a.txt").write_text("0 .5 .5 1 1")
    (root / "train" / "list.txt").write_text("./images/a.png\n")
    (root / "data.yaml").write_text(data)
    [image], _ = read(root / "data.yaml")
    assert image.boxes.tolist() == [[0, 0, 40, 30]]


DEFECTS: dict[str, str | bytes | None] = {
    "box of an unknown category": "1 .5 .5 .2 .2",
    "box outside its image": "0 1.5 .5 .2 .2",
    "box that reached out of its image: clipped": "0 .9 .5 .4 .2",
    "box without area": "0 .5 .5 0 .2",
    "box that is not four finite numbers": "0 .5 .5 nan .2",
    "line that is not a class and 4 or more numbers": "0 .5 .5 .2",
    "box that is not in shares of the image, or key points without kpt_shape": "0 20 15 8 6",
    "image with labels that are not Unicode": b"0 .5 .5 .2 .2 \xff",
    "image without a file of labels: taken to have no objects": None,
}


@pytest.mark.parametrize("reason", DEFECTS)
def test_every_defect_is_counted(dataset: Callable[..., Path], reason: str) -> None:
    images, report = read(dataset({"a": "0 .5 .5 .2 .2", "b": DEFECTS[reason]}))
    assert report.counts == {reason: 1}
    assert "b" in report.examples[reason]
    assert images[0].names == ["cat"]


def test_images_that_are_none_or_not_there(dataset: Callable[..., Path], tmp_path: Path) -> None:
    data = dataset({"a": "", "b": ""}, "train: list.txt\nnames: [cat]")
    (tmp_path / "images" / "train" / "b.jpg").write_text("no image")
    (tmp_path / "list.txt").write_text(
        "images/train/a.jpg\nimages/train/b.jpg\nimages/train/gone.jpg\nimages/train/a.jpg"
    )
    images, report = read(data)
    assert len(images) == 1
    for reason in ("image that cannot be read", "image file missing", "image named twice: used once"):
        assert report.counts[reason] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not YAML"),
        ("3", "has no 'names'"),
        ("train: images/train", "has no 'names'"),
        ("names: [cat]", "has no 'train'"),
        ("train: gone\nnames: [cat]", "no such folder or list of images"),
        ("train: labels\nnames: [cat]", "'train' has no images"),
    ],
)
def test_a_broken_description_is_refused(dataset: Callable[..., Path], text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(dataset({"a": ""}, text))


def test_names_are_the_characters_that_were_typed(dataset: Callable[..., Path]) -> None:
    names = ["on", "off", "02146", "1_000", "12:30", "2.50", "null"]
    lines = "".join(f"  {number}: {name}\n" for number, name in enumerate(names))
    _, report = read(dataset({"a": ""}, f"path: .\ntrain: images/train\nnames:\n{lines}"))
    assert report.names == names
    assert report.category_ids == [*range(7)]


@pytest.mark.parametrize(("count", "per_point"), [(4, 3), (17, 3), (12, 2), (5, 2), (1, 3)])
def test_key_points_are_no_corners(dataset: Callable[..., Path], count: int, per_point: int) -> None:
    points = " 0.9 0.9 2"[: 8 if per_point == 2 else None] * count
    data = f"train: images/train\nkpt_shape: [{count}, {per_point}]\nnames: [cat, dog, cow]"
    [image], report = read(dataset({"a": f"0 .5 .5 .5 .2{points}\n1 .5 .5 .5 .2\n2 .5 .5 .5 .2{points} .87"}, data))
    assert image.boxes.tolist() == [pytest.approx([10, 12, 30, 18])] * 3
    assert report.counts == {}


@pytest.mark.parametrize(("names", "labels"), [("[cat, dog]", "12"), ("{1: cat, 2: dog}", "01")])
def test_labels_that_count_from_another_number_are_refused(
    dataset: Callable[..., Path], names: str, labels: str
) -> None:
    lines = {f"i{label}": f"{label} .5 .5 .2 .2" for label in labels}
    with pytest.raises(InputError, match=rf"labels of 'train' go from {labels[0]} to {labels[1]}, its names from"):
        read(dataset(lines, f"train: images/train\nnames: {names}\n"))


@pytest.mark.parametrize(
    "data", ["path: ~/set\ntrain: images/train", "path: ~/set/images\ntrain: [train]", "train: ~/set/images/train"]
)
def test_a_place_may_begin_at_home(
    dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    moved = dataset({"a": "0 .5 .5 .2 .2"}, f"{data}\nnames: [cat]\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "set").mkdir(parents=True)
    for folder in ("images", "labels"):
        (tmp_path / folder).rename(tmp_path / "home" / "set" / folder)
    [image], _ = read(moved)
    assert image.names == ["cat"]


def test_a_home_that_nobody_has_is_no_place(dataset: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"~nobody/set/images: no such folder or list of images"):
        read(dataset({"a": ""}, "path: ~nobody/set\ntrain: images\nnames: [cat]\n"))


@pytest.mark.parametrize("shape", ["17", "[17]", "[a, 3]", "{}"])
def test_key_points_of_no_shape_are_refused(dataset: Callable[..., Path], shape: str) -> None:
    with pytest.raises(InputError, match="kpt_shape is not two numbers"):
        read(dataset({"a": ""}, f"{DATA}kpt_shape: {shape}"))


def test_a_confidence_behind_a_box_is_passed_over(dataset: Callable[..., Path]) -> None:
    [image], report = read(dataset({"a": "0 .5 .5 .5 .2 .93\n2.0 .5 .5 .5 .2"}))
    assert image.boxes.tolist() == [pytest.approx([10, 12, 30, 18])] * 2
    assert (image.names, image.judged, report.counts) == (["cat", "dog"], None, {})


@pytest.mark.parametrize(
    ("line", "judged"), [("2 .5 .5", ["cat"]), ("dog .5 .5 .2 .2", []), ("7 .5 .5 .2", None), ("2 90 90 5 5", ["cat"])]
)
def test_a_lost_box_leaves_its_category_unjudged(dataset: Callable[..., Path], line: str, judged: list[str]) -> None:
    [image], _ = read(dataset({"a": f"0 .5 .5 .2 .2\n{line}"}))
    assert (image.names, image.judged) == (["cat"], judged)


@pytest.mark.parametrize("folder", ["images/train", "photos"])
def test_labels_that_lie_beside_their_images(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (40, 30)).save(tmp_path / folder / f"{name}.jpg")
    (tmp_path / folder / "a.txt").write_text("0 .5 .5 .5 .2")
    (tmp_path / "data.yaml").write_text(f"train: {folder}\nnames: [cat]")
    (first, second), report = read(tmp_path / "data.yaml")
    assert (first.names, second.names) == (["cat"], [])
    assert report.counts == {"image without a file of labels: taken to have no objects": 1}


def test_images_without_any_labels_are_refused_with_the_place_tried(dataset: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"none of the 2 images of 'train' .* labels; .*labels/train/a\.txt$"):
        read(dataset({"a": None, "b": None}))


def test_labels_of_a_windows_editor_are_read(dataset: Callable[..., Path]) -> None:
    images, report = read(dataset({"a": "0 .5 .5 .5 .2".encode("utf-16"), "b": "0 .5 .5 .5 .2".encode("utf-8-sig")}))
    assert [image.names for image in images] == [["cat"], ["cat"]]
    assert report.counts == {}


@pytest.mark.parametrize("nothing", ["", "~", "null"])
def test_a_split_without_a_place_is_not_there(dataset: Callable[..., Path], nothing: str) -> None:
    data = dataset(
        {"a": "0 .5 .5 .5 .2"}, f"path: {nothing}\ntrain: {nothing}\nvalid: images/train\nval: {nothing}\nnames: [cat]"
    )
    assert len(read(data, "val")[0]) == 1
    with pytest.raises(InputError, match="has no 'train'"):
        read(data)


@pytest.mark.parametrize(
    ("rest", "told"), [(".5 .2 .2 .4 .5 1 .6 .5 1", 2), (".1 .3 .1 .3 .4 .1 .4", 0)], ids=["key points", "turned boxes"]
)
def test_key_points_without_their_shape_are_told(dataset: Callable[..., Path], rest: str, told: int) -> None:
    _, report = read(dataset({"a": f"0 .1 {rest}\n2 .1 {rest}"}))
    reason = "polygon with as many corners as all others: key points without kpt_shape?"
    assert report.counts == ({reason: told} if told else {})


def test_paths_that_windows_wrote(dataset: Callable[..., Path]) -> None:
    data = dataset({"a": "0 .5 .5 .5 .2"}, "train: images\\train\nval: val.txt\nnames: [cat, dog]\n")
    (data.parent / "val.txt").write_text("images\\train\\a.jpg\n")
    for split in ("train", "val"):
        [image], _ = read(data, split)
        assert image.names == ["cat"]
