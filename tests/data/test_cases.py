"""Odd files of strangers, where TREX2_CASES names their folder: each is read to what it means, or refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import FORMAT as COCO
from trex2_lightning.data.formats.coco import read_coco
from trex2_lightning.data.formats.yolo import read_yolo
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.opening import read_records


@pytest.fixture(scope="session")
def case() -> Callable[[str], Path]:
    folder = os.environ.get("TREX2_CASES", "")
    if not folder:
        pytest.skip("TREX2_CASES is not set")
    return lambda name: Path(folder, name)


def test_names_of_yaml_stay_text(case: Callable[[str], Path]) -> None:
    report = Report()
    images = list(read_yolo(case("yaml_names") / "data" / "data.yaml", report))
    assert report.names == ["on", "off", "02146", "1_000", "12:30", "2.50", "null"]
    assert all(len(image.boxes) for image in images)


@pytest.mark.parametrize("name", ["data_4_3", "data_17_3", "data_12_2"])
def test_boxes_of_pose_labels(case: Callable[[str], Path], name: str) -> None:
    data = case("yolo_pose") / name / "data.yaml"
    report = Report()
    images = list(read_yolo(data, report))
    for image in images:
        labels = Path(image.path.replace("/images/", "/labels/")).with_suffix(".txt").read_text().splitlines()
        boxes = [[float(number) for number in line.split()[1:5]] for line in labels]
        sizes = [
            ((right - left) / image.width, (bottom - top) / image.height)
            for left, top, right, bottom in image.boxes.tolist()
        ]
        assert sizes == [pytest.approx(box[2:], abs=1e-3) for box in boxes]
    assert report.counts == {}


@pytest.mark.parametrize("name", ["a", "b"])
def test_labels_beside_images(case: Callable[[str], Path], name: str) -> None:
    images = list(read_yolo(case("yolo_labels_beside") / name / "data.yaml", Report()))
    assert all(len(image.boxes) for image in images)


@pytest.mark.parametrize(
    ("name", "places"),
    [("file_names", ["."]), ("labelstudio_paths", ["train"]), ("mac_zip", ["train.zip"]), ("mac_zip", ["."])],
)
def test_every_image_is_found(case: Callable[[str], Path], name: str, places: list[str]) -> None:
    folder, report = case(name) / "data", Report()
    store = ImageStore([folder / place for place in places])
    images = list(read_coco(folder / "train.json", store, report))
    assert len(images) == len({image.path for image in images}) > 0
    assert all(len(image.boxes) for image in images)
    assert {reason.partition(":")[0] for reason in report.counts} <= {"image found by another spelling of its name"}
    if places[0] in (".", "train") and name != "mac_zip":
        read = read_records(folder / "train.json", folder / places[0], COCO)
        assert all(image.path.is_file() for image in read.images)


def test_a_heading_of_roboflow_is_no_category(case: Callable[[str], Path]) -> None:
    for part in ("train", "valid", "test"):
        folder = case("roboflow_heading") / "data" / part
        read = read_records(folder / "_annotations.coco.json", folder, COCO)
        assert {*read.names} == {read.names[label] for image in read.images for label in image.labels}
