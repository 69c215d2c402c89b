"""COCO's few-shot split as FsDet hands it out (TFA, arXiv 2003.06957): https://github.com/ucbdrive/few-shot-object-detection.

The boxes of each category lie in a file of their own, `full_box_10shot_cat_trainval.json`; `*` in the category's place
joins the files. The test split is one file, `datasplit/5k.json`. The categories that Pascal VOC has are the group
`novel`, the others `base`. Images are COCO's of 2014, in the folders `train2014` and `val2014`, which their names tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trex2_lightning.data.annotations.cleaning import Annotated, as_id
from trex2_lightning.data.annotations.coco_columns import Dialect, Entry
from trex2_lightning.data.annotations.declaration import Argument, Format
from trex2_lightning.data.annotations.json_files import json_lists
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.formats.coco import LISTS, read_dialect, read_entries
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.errors import InputError

NOVEL = (
    *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "couch", "cow", "dining table"),
    *("dog", "horse", "motorcycle", "person", "potted plant", "sheep", "train", "tv"),
)
FETCH = "fetch cocosplit/ from http://dl.yf.io/fs-det/datasets/, or make it with FsDet's prepare_coco_few_shot.py"


def read_fsdet(annotations: Path, store: ImageStore, report: Report) -> Iterator[Annotated]:
    """The images of a file, or of all files that a pattern stands for.

    Raises:
        InputError: there is no file, a category has none, or as `read_dialect`.
    """
    if "*" not in annotations.name:
        return read_dialect(annotations, store, report, FSDET)
    return read_entries(_joined(annotations, report), annotations, store, report, FSDET)


FORMAT = Format(
    name="fsdet",
    help="COCO's few-shot split, with base and novel categories",
    data_sets="COCO-FSOD (FsDet)",
    judges="all categories; of shots their own",
    kinds=(),
    reader=read_fsdet,
    sources=(Argument("annotations", "JSON file, or full_box_10shot_*_trainval.json"),),
    direct=".json",
    indexed=False,  # an index is made of one file
)


def _file_names(image: Entry) -> Sequence[Any]:
    """COCO_train2014_000000000009.jpg lies in train2014."""
    name = image.get("file_name")
    parts = name.split("_") if isinstance(name, str) else []
    return [f"{parts[1]}/{name}"] if len(parts) == 3 else [name]


FSDET = Dialect(_file_names, group=lambda category: "novel" if category.get("name") in NOVEL else "base")


def _joined(pattern: Path, report: Report) -> Iterator[tuple[str, Any]]:
    """The entries of all files; of an image or a category that several have, the first one's."""
    known: dict[str, set[Any]] = {"images": set(), "categories": set()}
    names: set[str] = set()
    files = sorted(pattern.parent.glob(pattern.name))
    for file in files:
        own: dict[str, set[Any]] = {key: set() for key in known}
        for key, entry in json_lists(file, report, LISTS):
            number = as_id(entry.get("id")) if isinstance(entry, dict) else None
            if key in known and number is not None:
                own[key].add(number)
                if number in known[key]:
                    continue
                names |= {str(entry.get("name"))} if key == "categories" else set()
            yield key, entry
        for key, numbers in own.items():
            known[key] |= numbers
    there = {file.name for file in files}
    missing = sorted({pattern.name.replace("*", name) for name in names or {"*"}} - there)
    if missing:
        more = f" nor {len(missing) - 1} more" if missing[1:] else ""
        raise InputError(f"{pattern.parent}: has no {missing[0]}{more}: {FETCH}")
