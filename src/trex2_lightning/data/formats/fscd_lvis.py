"""FSCD-LVIS (arXiv 2207.10988): images of LVIS, each with all objects of one category and exemplars that show it.

`count_SPLIT.json` with exemplars and points lies beside `instances_SPLIT.json` with the boxes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trex2_lightning.data.annotations.cleaning import Annotated, as_id, xywh
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.json_files import json_whole
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import read_dialect
from trex2_lightning.data.formats.fsc147 import COUNTED, a_list, with_count
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError


def read_fscd_lvis(annotations: Path, store: ImageStore, report: Report) -> Iterator[Annotated]:
    """The images of a split, by its `instances_SPLIT.json`.

    Raises:
        InputError: a file is missing or broken, or the two do not fit.
    """
    beside = annotations.with_name(annotations.name.replace("instances", "count"))
    content = json_whole(beside, report, dict)
    try:
        counted = {
            as_id(item["image_id"]): ([_corners(box) for box in a_list(item["boxes"])], len(a_list(item["points"])))
            for item in a_list(content["annotations"])
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{beside}: {error!r} is not as in FSCD-LVIS; fetch it again") from error
    for image in read_dialect(annotations, store, report, COUNTED):
        if image.id not in counted:
            raise InputError(
                f"{beside}: has no image {image.id}, so it does not fit {annotations.name}; fetch both again"
            )
        yield with_count(image, *counted[image.id], report)


FORMAT = Format(
    name="fscd_lvis",
    help="FSCD-LVIS, with exemplars and counts",
    data_sets="FSCD-LVIS",
    judges="the one category, `object`",
    kinds=(),
    reader=read_fscd_lvis,
    sources=(Argument("annotations", "instances_test.json or the like, beside count_test.json"),),
    direct=".json",
    indexed=False,  # an index has neither exemplars nor counts
)


def _corners(box: Any) -> tuple[float, ...]:
    corners = xywh(box)
    if not all(map(math.isfinite, corners)):
        raise ValueError(box)
    return corners
