"""Benchmarks as Roboflow exports them (ODinW, Roboflow-100): COCO's format, with names that are kept as they are.

Two of them may differ in case or spaces alone, as `Q` and `q`, `o` and `o ` of boggleBoards do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.coco_columns import Dialect
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import read_dialect
from trex2_lightning.data.images.archives import ImageStore

ROBOFLOW = Dialect(names_as_given=True)


def read_roboflow(annotations: Path, store: ImageStore, report: Report) -> Iterator[Annotated]:
    """The images of `_annotations.coco.json`.

    Raises:
        InputError: see `read_dialect`.
    """
    return read_dialect(annotations, store, report, ROBOFLOW)


FORMAT = Format(
    name="roboflow",
    help="Roboflow's benchmarks, with names as they are",
    data_sets="ODinW, Roboflow-100",
    judges="all categories",
    kinds=("detection",),
    reader=read_roboflow,
    sources=(Argument("annotations", "_annotations.coco.json"),),
    direct=".json",
    indexed=False,  # an index has one spelling of a name
)
