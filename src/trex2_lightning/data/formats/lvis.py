"""LVIS v1 (https://www.lvisdataset.org/dataset): COCO's format with federated annotation (arXiv 1908.03195).

An image judges the categories that it has boxes of and those of `neg_category_ids`, which it lacks; of those in
`not_exhaustive_category_ids` it has more than are marked. About all others the data set does not say. A category's
group is `rare`, `common` or `frequent`, its name has spaces in place of underscores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.coco_columns import Dialect, Entry
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import read_dialect
from trex2_lightning.data.images.archives import ImageStore

FREQUENCY_GROUPS = {"r": "rare", "c": "common", "f": "frequent"}


def read_lvis(annotations: Path, store: ImageStore, report: Report) -> Iterator[Annotated]:
    """The images of an LVIS file; `store` has COCO's folders `train2017` and `val2017`, or one of them alone.

    Raises:
        InputError: see `read_dialect`.
    """
    return read_dialect(annotations, store, report, LVIS)


FORMAT = Format(
    name="lvis",
    help="LVIS, with what each image does not judge",
    data_sets="LVIS v1",
    judges="those it has, unless not exhaustive, and those listed as negative",
    kinds=("detection",),
    reader=read_lvis,
    sources=(Argument("annotations", "lvis_v1_train.json or the like"),),
    direct=".json",
)


def _file_names(image: Entry) -> list[Any]:
    """v1 names a file by its URL alone; v0.5 has `file_name`."""
    url = image.get("coco_url")
    parts = url.split("/") if isinstance(url, str) else []
    return [name for name in ("/".join(parts[-2:]), "".join(parts[-1:]), image.get("file_name")) if name]


def _verdict(image: Entry) -> tuple[Any, Any]:
    return image.get("neg_category_ids"), image.get("not_exhaustive_category_ids")


def _name(category: Entry) -> Any:
    name = category.get("name")
    return name.replace("_", " ") if isinstance(name, str) else name


LVIS = Dialect(_file_names, _name, lambda category: FREQUENCY_GROUPS.get(str(category.get("frequency")), ""), _verdict)
