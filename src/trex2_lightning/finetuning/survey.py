"""A data set as it is found in a folder: its splits as indexes in the run's folder, and what is on its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.discovery import UNSPLIT, SplitSource, discover, unused_files
from trex2_lightning.data.division import divide
from trex2_lightning.data.index.reading import Index
from trex2_lightning.data.index.writing import build_index
from trex2_lightning.errors import InputError

SMALL, TYPICAL, MOST = 10, 50, 99  # percentiles
IN_ORDER = ("train", "val", "test", "reference")


class Survey(NamedTuple):
    """What there is to train on; sides are shares of a picture's shorter side."""

    num_images: int
    num_boxes: int
    names: tuple[str, ...]  # that have boxes
    short_side: int  # pixels, of the typical picture
    aspect: float  # longer side over shorter, of all but the longest tenth
    small: float  # side of a box, the square root of its area, of which a tenth are smaller
    crowded: int  # boxes of the fullest pictures but for a hundredth


class PreparedFolder(NamedTuple):
    """The data set's splits, and what is to be told of them."""

    splits: dict[str, Index]  # `train`, `val`, and of `test` and `reference` what there is
    lines: tuple[str, ...]  # what was found, and all that is not used


def prepare_folder(folder: Path, output: Path, form: str = "") -> PreparedFolder:
    """Read the splits that are found in a folder, and write each as an index to `output`; make val where there is none.

    Args:
        folder: of the data set, as it was unpacked.
        output: to write to.
        form: the format to look for; "": any.

    Raises:
        InputError: as `discover`, or an annotation file cannot be read, or no box is in the training split.
    """
    content = discover(folder, form)
    read = {name: _index(source, output / name) for name, source in content.splits.items()}
    splits = {name if name != UNSPLIT else "train": index for name, index in read.items()}
    if not splits["train"].num_boxes:
        raise InputError(f"{folder}: no picture to train on has a box: annotate some")
    whence = {name if name != UNSPLIT else "train": str(source.annotations) for name, source in content.splits.items()}
    if "val" not in splits:
        splits["train"], splits["val"] = divide(splits["train"], output / "divided")
        whence["val"] = f"a tenth of {whence['train']}, stratified: {output / 'divided' / 'val.txt'} lists it"
    lines = [f"{folder}: {content.form}"]
    for name in IN_ORDER:
        if name in splits:
            index, kinds = splits[name], np.count_nonzero(splits[name].image_counts)
            what = f"{len(index):,} pictures, {index.num_boxes:,} boxes of {kinds:,} categories"
            lines.append(f"  {name:9} {what}: {whence[name]}")
        else:
            lines.append(f"  {name:9} none")
    for name in ("val", "test"):
        if name in splits and (unseen := _with_boxes(splits[name]) - _with_boxes(splits["train"])):
            some = ", ".join(sorted(unseen)[:5])
            lines.append(f"  in {name}: {len(unseen):,} categories that have no box in train, such as {some}")
    for name, index in read.items():
        for reason, number in sorted(index.summary["counts"].items()):
            lines.append(f"  in {name}: {number:,} x {reason} ({index.summary['examples'][reason]})")
    lines += [f"  not read: {file}: {why}" for file, why in content.left_out.items()]
    used = {image.path.resolve() for index in read.values() for image in index}
    used |= {file for source in content.splits.values() for file in _annotation_files(source)}
    lines += [f"  not used: {number:,} {kind} files" for kind, number in sorted(unused_files(folder, used).items())]
    return PreparedFolder(splits, tuple(lines))


def survey(train: Index) -> Survey:
    """Look at a training split that has boxes."""
    height, width, counts = train.extents()
    short, long = np.minimum(height, width), np.maximum(height, width)
    boxes, labels, crowd = (
        np.load(train.folder / f"{name}.npy", mmap_mode="r") for name in ("boxes", "labels", "crowd")
    )
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])) / np.repeat(short, counts)
    real = ~np.asarray(crowd)
    chosen = sides[real] if real.any() else sides
    return Survey(
        num_images=len(train),
        num_boxes=int(real.sum()),
        names=tuple(train.names[label] for label in np.unique(np.asarray(labels)[real]).tolist()),
        short_side=int(np.percentile(short, TYPICAL)),
        aspect=float(np.percentile(long / short, 100 - SMALL)),
        small=float(np.percentile(chosen, SMALL)),
        crowded=int(np.percentile(counts, MOST)),
    )


def _index(source: SplitSource, folder: Path) -> Index:
    if source.form is None:
        return Index(source.annotations)
    report = Report()
    return build_index(folder, source.form.read(source.arguments, report), report, {})


def _with_boxes(index: Index) -> set[str]:
    return {index.names[label] for label in index.image_counts.nonzero()[0].tolist()}


def _annotation_files(source: SplitSource) -> set[Path]:
    """That are read, and what lies in an index."""
    place = source.annotations.resolve()
    if place.is_file():
        return {place}
    return {file for file in place.iterdir() if file.suffix.lower() == (".xml" if source.form else ".json")}
