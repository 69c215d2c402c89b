"""The val split that is made: how many of each label, and whose copies stay together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.division import divide, stratified
from trex2_lightning.data.index.reading import Index
from trex2_lightning.data.index.writing import build_index
from trex2_lightning.errors import InputError


def test_a_tenth_of_each_label_is_taken() -> None:
    labels = [{0}] * 100 + [{1}] * 20 + [{0, 2}] * 30 + [set()] * 10
    chosen = stratified(labels)
    counts = [sum(label in labels[unit] for unit in chosen) for label in (0, 1, 2)]
    assert counts == [13, 2, 3]
    assert sum(not labels[unit] for unit in chosen) == 1
    assert stratified(labels) == chosen


@pytest.mark.parametrize("label", range(3))
def test_what_is_there_once_is_trained(label: int) -> None:
    labels = [{0}] * 20 + [{1}] * 20 + [{2}] * 20
    labels[7] = {label, 9}
    assert 7 not in stratified(labels)


def test_few_images_give_one() -> None:
    chosen = stratified([{0}, {0}, {0}])
    assert len(chosen) == 1
    assert stratified([{0}, {1}]) == set()


def test_ids_boxes_and_what_is_judged_go_with_the_image(tmp_path: Path) -> None:
    train, val = divide(indexed(tmp_path, [f"{number}" for number in range(20)]), tmp_path)
    assert len(train) == 18
    for image in val:
        number = image.id
        assert image.path.name == f"{number}.jpg"
        assert image.boxes.tolist() == [[0, 0, number + 1, 5]]
        assert [val.names[label] for label in image.labels] == [f"kind {number % 2}"]
        assert image.judged is not None
        assert [val.names[label] for label in image.judged] == [f"kind {number % 2}"]
    assert list(val.names) == list(train.names) == ["kind 0", "kind 1"]
    assert val.summary["category_ids"] == [7, 8]


def test_augmented_copies_stay_together(tmp_path: Path) -> None:
    """Roboflow's exports have several of an image; one in val and one in train would be the same picture."""
    whole = indexed(tmp_path, [f"{number // 3}_jpg.rf.{number:032x}" for number in range(60)])
    train, val = divide(whole, tmp_path)
    sources = [{image.path.name.split(".rf.")[0] for image in part} for part in (train, val)]
    assert len(val) == 6
    assert sources[0].isdisjoint(sources[1])


def test_one_image_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images can be spared for a val split"):
        divide(indexed(tmp_path, ["0"]), tmp_path)


def indexed(folder: Path, stems: list[str]) -> Index:
    report = Report()
    report.declare([(7, "kind 0", ""), (8, "kind 1", "")])
    report.sources = []
    images = (
        Annotated(
            path=f"/pictures/{stem}.jpg",
            width=100,
            height=10,
            boxes=np.array([[0, 0, number + 1, 5]], np.float32),
            names=[f"kind {number % 2}"],
            crowd=np.array([False]),
            area=np.array([1.0], np.float32),
            judged=[f"kind {number % 2}"],
            id=number,
        )
        for number, stem in enumerate(stems)
    )
    return build_index(folder / "whole", images, report, {})
