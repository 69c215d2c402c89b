"""LVIS v1 (https://www.lvisdataset.org/dataset): COCO's format with federated annotation (arXiv 1908.03195).

An image judges the categories that it has boxes of and those of `neg_category_ids`, which it lacks; of those in
`not_exhaustive_category_ids` it has more than are marked. About all others the data set does not say. A category's
group is `rare`, `common` or `frequent`, its name has spaces in place of underscores, as in evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trex2_lightning.data.annotations.annotated import Annotated, Report
from trex2_lightning.data.formats.coco import Dialect, Entry, read_coco
from trex2_lightning.data.images.archives import ImageStore

GROUPS = {"r": "rare", "c": "common", "f": "frequent"}


def read_lvis(annotations: Path, store: ImageStore, report: Report) -> Iterator[Annotated]:
    """The images of an LVIS file; `store` has COCO's folders `train2017` and `val2017`, or one of them alone.

    Raises:
        InputError: the file is not JSON, or lacks images or categories.
    """
    return read_coco(annotations, store, report, LVIS)


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


LVIS = Dialect(_file_names, _name, lambda category: GROUPS.get(str(category.get("frequency")), ""), _verdict)
