"""What training and evaluation read of a data set: an index, or an annotation file that is read into memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.declaration import Format
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.images.archives import ImageStore
from trex2_lightning.data.index.reading import SUMMARY, open_index
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.errors import InputError

log = logging.getLogger(__name__)


def open_records(annotations: Path, images: Path, form: Format) -> Records:
    """The folder of an index, which knows its images, or a file that the format lets be read directly.

    Args:
        annotations: the index or the file.
        images: the folder that the file's names of images are relative to; where the pictures of an index may be too.
        form: of the file.

    Raises:
        InputError: see `read_records` and `open_index`; or it is a file of another kind.
    """
    if form.is_direct(annotations):
        return read_records(annotations, images, form)
    if annotations.is_file():
        raise InputError(
            f"{annotations}: {form.name} is read from {f'{form.direct} files' if form.direct else 'an index alone'}; "
            "make an index of it with trex2 prepare"
        )
    return open_index(annotations, images.absolute())


def is_there(annotations: Path) -> bool:
    """Whether it is a file, a pattern of some (`*` in its name), or the folder of an index."""
    if "*" in annotations.name:
        return any(annotations.parent.glob(annotations.name))
    return annotations.is_file() or (annotations / SUMMARY).is_file()


def read_records(annotations: Path, images: Path, form: Format) -> Records:
    """The records of an annotation file; no image is looked for or opened.

    Boxes are clipped to their image and dropped if no area is left; that is counted, and reported by `logging`.

    Raises:
        InputError: a missing file or folder, or an entry that is wrong.
    """
    if is_there(annotations) and not images.is_dir():
        raise InputError(f"{images}: no such image folder; set data.root= to the data set's folder, or mend the path")
    report = Report(strict=True)
    read = list(form.reader(annotations, store=ImageStore([images], look=False), report=report))
    _log(annotations, report)
    return Records(
        images=_images(read, {name: label for label, name in enumerate(report.names)}),
        names=tuple(report.names),
        category_ids=tuple(report.category_ids),
        groups=tuple(report.groups),
        annotations=annotations,
        lost=report.lost,
    )


def _images(read: Sequence[Annotated], labels: Mapping[str, int]) -> list[ImageRecord]:
    """Their boxes lie together in memory."""
    counts = [len(image.boxes) for image in read]
    boxes, own_labels, crowd, area = (
        torch.from_numpy(column).split(counts)
        for column in (
            np.concatenate([np.zeros((0, 4), np.float32), *(image.boxes for image in read)]),
            np.asarray([labels[name] for image in read for name in image.names], np.int64),
            np.concatenate([np.zeros(0, np.bool_), *(image.crowd for image in read)]),
            np.concatenate([np.zeros(0, np.float32), *(image.area for image in read)]),
        )
    )
    return [
        ImageRecord(
            id=number if image.id is None else image.id,
            path=Path(image.path),
            width=image.width,
            height=image.height,
            boxes=boxes[number],
            labels=own_labels[number],
            crowd=crowd[number],
            area=area[number],
            judged=None if image.judged is None else torch.tensor(sorted(labels[n] for n in image.judged)).long(),
            exemplars=None if image.exemplars is None else torch.from_numpy(image.exemplars),
            num_objects=image.num_objects,
        )
        for number, image in enumerate(read)
    ]


def _log(annotations: Path, report: Report) -> None:
    for reason, number in report.counts.items():
        log.warning("%s: %d x %s (%s)", annotations, number, reason, report.examples[reason])
