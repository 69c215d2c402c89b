"""Objects365 v1 and v2 (https://www.objects365.org): COCO's format with names of files that the archives do not have.

v2 says `images/v1/patch8/x.jpg` where the archives unpack to `patch8/x.jpg`, or to whatever they are unpacked into. A
download that lacks some images is the rule; they are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.coco_columns import Dialect, Entry
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import read_dialect
from trex2_lightning.data.images.archives import ImageStore


def read_objects365(annotations: Path, store: ImageStore, report: Report) -> Iterator[Annotated]:
    """The images of an Objects365 file.

    Raises:
        InputError: see `read_dialect`.
    """
    return read_dialect(annotations, store, report, OBJECTS365)


FORMAT = Format(
    name="objects365",
    help="Objects365 v1 or v2",
    data_sets="Objects365 v1 and v2",
    judges="all categories",
    kinds=("detection",),
    reader=read_objects365,
    sources=(Argument("annotations", "objects365_train.json or zhiyuan_objv2_train.json"),),
)


def _file_names(image: Entry) -> list[str]:
    """As the file says, then below its last folder, then alone: all names of the data set's files are different."""
    name = image.get("file_name")
    parts = name.split("/") if isinstance(name, str) else []
    return list(dict.fromkeys("/".join(parts[-count:]) for count in (len(parts), 2, 1) if parts))


OBJECTS365 = Dialect(_file_names)
