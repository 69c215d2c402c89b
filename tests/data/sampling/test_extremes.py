"""The largest padding that images can come to, by hand, and the images with the most boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trex2_lightning.commands.prepare import main as prepare_data
from trex2_lightning.config import AugmentConfig, DataConfig
from trex2_lightning.data.index.reading import open_index
from trex2_lightning.data.sampling.extremes import (
    Extents,
    extents,
    largest_evaluation_padding,
    largest_training_padding,
    most_boxes,
)

PHOTO, SQUARE, PANORAMA, UPRIGHT = (480, 640), (500, 500), (300, 1200), (640, 480)  # height, width


def of(*sizes: tuple[int, int], boxes: tuple[int, ...] = ()) -> Extents:
    height, width = np.array(sizes).T
    return Extents(height, width, np.array(boxes or [0] * len(sizes)))


def config(batch_size: int = 8, crop: float = 0.0) -> DataConfig:
    return DataConfig(train_sizes=[480, 800], batch_size=batch_size, augment=AugmentConfig(crop=crop))


@pytest.mark.parametrize(
    ("sizes", "settings", "mixed", "expected"),
    [
        ([PHOTO], {}, False, (800, 1088)),  # 800 x 1066
        ([SQUARE], {}, False, (800, 800)),
        ([PANORAMA], {}, False, (352, 1344)),  # 333 x 1333
        ([UPRIGHT], {}, False, (1088, 800)),
        ([PHOTO, PANORAMA], {}, False, (800, 1344)),  # one is high, the other wide
        ([PHOTO, PANORAMA], {"batch_size": 1}, False, (800, 1088)),
        ([PHOTO, UPRIGHT], {}, True, (1088, 1088)),
        ([PHOTO, UPRIGHT], {}, False, (800, 1088)),
        ([PHOTO, UPRIGHT], {"batch_size": 1}, True, (800, 1088)),
        ([SQUARE, UPRIGHT], {}, True, (1088, 800)),
        ([PANORAMA, UPRIGHT], {}, True, (1088, 1344)),
        ([PHOTO], {"crop": 0.5}, False, (800, 1344)),  # a crop twice as wide as high
        ([PANORAMA], {"crop": 0.5}, False, (800, 1344)),  # a square one
        ([SQUARE], {"crop": 0.5, "batch_size": 1}, False, (800, 1344)),
    ],
)
def test_the_largest_padding(
    sizes: list[tuple[int, int]], settings: dict, mixed: bool, expected: tuple[int, int]
) -> None:
    """Sides are multiples of 32 behind 800 and at most 1333 pixels."""
    assert largest_training_padding(of(*sizes), config(**settings), mixed=mixed) == expected


def test_evaluation_has_its_own_size_and_no_crop() -> None:
    settings = DataConfig(size=320, max_size=600, train_sizes=[900], augment=AugmentConfig(crop=1.0))
    assert largest_evaluation_padding(of(PHOTO, UPRIGHT), settings, 8) == (448, 448)  # 426
    assert largest_evaluation_padding(of(PHOTO, UPRIGHT), settings, 1) == (320, 448)


def test_the_images_with_most_boxes_come_first() -> None:
    found = of(PHOTO, UPRIGHT, PHOTO, UPRIGHT, boxes=(3, 9, 5, 1))
    assert most_boxes(found, 3) == (1, 2, 0)
    assert most_boxes(found, 3, portrait=False) == (2, 0)
    assert most_boxes(found, 1, portrait=True) == (1,)


def test_an_index_tells_what_its_records_tell(tiny_coco: Path, tmp_path: Path) -> None:
    prepare_data(["coco", str(tiny_coco / "train.json"), str(tiny_coco / "train"), str(tmp_path / "index")])
    images = open_index(tmp_path / "index").images
    one, other = extents(images), extents(list(images))
    assert [column.tolist() for column in one] == [column.tolist() for column in other]
    assert (len(one.height), int(one.boxes.min())) == (6, 0)
