"""FSC-147 (arXiv 2104.08391): every image with its exemplars and its number of objects, and FSCD-147's boxes.

`annotation_FSC147_384.json` and `Train_Test_Val_FSC_147.json` lie beside `instances_SPLIT.json` of FSCD-147 (arXiv
2207.10988). Without that file, which `train` and `val` may lack, there are no boxes, so no AP.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trex2_lightning.data.annotations.cleaning import Annotated, annotate, numbers
from trex2_lightning.data.annotations.coco_columns import Dialect
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.json_files import json_whole
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import read_dialect
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.errors import InputError

OBJECT = "object"  # the one category of a counting benchmark: what it is, the exemplars show
COUNTED = Dialect(only=OBJECT)
NUM_EXEMPLARS = 3


def read_fsc147(annotations: Path, store: ImageStore, report: Report) -> Iterator[Annotated]:
    """The images of a split, those that `annotations`, its `instances_SPLIT.json`, does not have without boxes.

    Raises:
        InputError: a file is missing or broken, or an image of which no file says the size is.
    """
    split = annotations.stem.removeprefix("instances_")
    objects = json_whole(annotations.with_name("annotation_FSC147_384.json"), report, dict)
    files = json_whole(annotations.with_name("Train_Test_Val_FSC_147.json"), report, dict)
    try:
        counted = [
            (
                str(name),
                [_corners(shown) for shown in a_list(entry["box_examples_coordinates"])],
                len(a_list(entry["points"])),
            )
            for name, entry in ((name, objects[name]) for name in files[split])
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{annotations.parent}: {error!r} in FSC-147's {split} split; fetch its files again"
        ) from error
    boxes: dict[str, Annotated] = {}
    if annotations.is_file():
        boxes = {Path(image.path).name: image for image in read_dialect(annotations, store, report, COUNTED)}
    else:
        report.declare([(1, OBJECT, "")])
    if strange := sorted(boxes.keys() - {name for name, _, _ in counted}):
        raise InputError(
            f"{annotations}: has {strange[0]}, which is not in FSC-147's {split} split; fetch its files again"
        )
    if boxes and len(boxes) < len(counted):
        report.count("image that only its number of objects is known of", annotations.name, len(counted) - len(boxes))
    first = 1 + max((image.id or 0 for image in boxes.values()), default=0)
    for number, (name, exemplars, count) in enumerate(counted, first):
        image = boxes.get(name) or _without_boxes(number, name, store, report)
        yield with_count(image, exemplars, count, report)


FORMAT = Format(
    name="fsc147",
    help="FSC-147 and FSCD-147, with exemplars and counts",
    data_sets="FSC-147, with the boxes of FSCD-147",
    judges="the one category, `object`",
    kinds=(),
    reader=read_fsc147,
    sources=(Argument("annotations", "instances_test.json or the like, beside FSC-147's two files"),),
    direct=".json",
    indexed=False,  # an index has neither exemplars nor counts
)


def with_count(image: Annotated, exemplars: Sequence[Sequence[float]], count: int, report: Report) -> Annotated:
    """The image with the first of its exemplars, xyxy in pixels and clipped to it, and its number of objects."""
    boxes = np.asarray(exemplars[:NUM_EXEMPLARS], np.float64).reshape(-1, 4)
    inside = boxes.clip(0, [image.width, image.height] * 2)
    clipped = int((inside != boxes).any(1).sum())
    if clipped:
        report.count("exemplar that reached out of its image: clipped", Path(image.path).name, clipped)
    return image._replace(exemplars=inside.astype(np.float32), num_objects=count)


def a_list(value: Any) -> list[Any]:
    """Raises TypeError: it is none."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.40} in place of a list")
    return value


def _corners(polygon: list[list[float]]) -> tuple[float, ...]:
    x, y = zip(*polygon, strict=True)
    corners = numbers([min(x), min(y), max(x), max(y)])
    if not all(map(math.isfinite, corners)):
        raise ValueError(polygon)
    return corners


def _without_boxes(image_id: int, name: str, store: ImageStore, report: Report) -> Annotated:
    path = store.find(name)
    if path is None:
        raise InputError(f"{name}: an image of FSC-147 that is not in its folder; fetch its files again")
    return annotate(report, name, path, read_image(Path(path)).size, [], [], image_id=image_id)
