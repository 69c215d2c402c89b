"""One index for every data set: plain columns on disk, read at their place, shared by all workers and ranks.

A folder of `.npy` files, one a column, and `index.json` with counts, version and checksums. An image's boxes lie
together, so an image is some six reads of a few hundred bytes each, out of the operating system's cache, of which all
processes share one. Measured on 1.7 M images with 25.6 M boxes, for 10,000 random images and two columns: reading at a
place 44 µs an image and no memory; `np.memmap` 151 µs and Arrow's IPC 162 µs, both with over 510 MB of pages counted to
the process, because the kernel maps the neighbours of each page too. So there is neither Arrow nor a map here; a whole
column is still `np.load(folder / "labels.npy", mmap_mode="r")` away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trex2_lightning.data.index.columns import Column, Strings
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.errors import InputError

VERSION = 2  # 1 has the area of the clipped box where the file has none
SUMMARY = "index.json"
CONTENT: dict[str, type] = {  # of `index.json`, beside its version
    **dict.fromkeys(("settings", "counts", "examples", "columns"), dict),
    **dict.fromkeys(("sources", "category_ids", "groups"), list),
    "nameless": bool,
}
IMAGES_AT_ONCE = 2**18  # some 14 MB of their column
EVERYTHING = -1  # in place of a number of judged categories
IMAGE = np.dtype(
    [
        ("id", "<i8"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("path", "<i8"),  # where it begins in `paths`
        ("path_bytes", "<i4"),
        ("boxes", "<i8"),  # where its own begin
        ("num_boxes", "<i4"),
        ("judged", "<i8"),  # where its own begin
        ("num_judged", "<i4"),  # EVERYTHING: all categories
    ]
)
COLUMNS: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
    "images": (IMAGE, ()),
    "paths": (np.dtype("u1"), ()),  # bytes, as the file system has them
    "boxes": (np.dtype("<f4"), (4,)),  # xyxy in pixels
    "labels": (np.dtype("<i4"), ()),
    "crowd": (np.dtype("?"), ()),
    "area": (np.dtype("<f4"), ()),  # square pixels
    "judged": (np.dtype("<i4"), ()),  # labels
    "names": (np.dtype("u1"), ()),  # UTF-8
    "name_stops": (np.dtype("<i8"), ()),  # where each name ends in `names`
    "name_images": (np.dtype("<i8"), ()),  # images that have a box of the name
}


class Index(Sequence[ImageRecord]):
    """The images of a data set, each read when it is asked for. It pickles to its folder's name.

    Attributes:
        names: category names in label order; of a grounding set its phrases, of nameless data none. Read when asked.
        num_boxes: of all images.
        summary: what `index.json` says.

    Args:
        folder: as `data.index.writing.build_index` left it, or moved together with its pictures.
        pictures: where else the folder of all pictures may be, after its place from the index and the one it had.

    Raises:
        InputError: there is no index, it is of another version, or a column has not the length that it was left with.
    """

    def __init__(self, folder: Path, pictures: Path | None = None) -> None:
        self.folder = folder
        self._pictures = pictures
        self.summary = _summary(folder)
        try:
            self._columns = {name: Column(folder / f"{name}.npy") for name in COLUMNS}
            lengths = {name: (folder / f"{name}.npy").stat().st_size for name in COLUMNS}
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: the index is broken ({error}); prepare the data set again") from error
        for name, length in lengths.items():
            column = self.summary["columns"].get(name)
            if not isinstance(column, dict) or length != column.get("bytes"):
                raise InputError(
                    f"{folder}: {name}.npy has not the length it was left with; prepare the data set again"
                )
        self.names: Sequence[str] = Strings(self._columns["names"], self._columns["name_stops"])
        self.num_boxes = len(self._columns["labels"])
        self._root, self._root_now = self._place_of_pictures()

    def __reduce__(self) -> tuple[type[Index], tuple[Path, Path | None]]:
        return Index, (self.folder, self._pictures)

    def __len__(self) -> int:
        return len(self._columns["images"])

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageRecord]: ...
    def __getitem__(self, index: int | slice) -> ImageRecord | list[ImageRecord]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        [row] = self._columns["images"].read(place, place + 1).tolist()
        image_id, width, height, path, path_bytes, start, num_boxes, judged, num_judged = row
        return ImageRecord(
            id=image_id,
            path=Path(self._root_now + self._path(path, path_bytes).removeprefix(self._root)),
            width=width,
            height=height,
            boxes=self._rows("boxes", start, num_boxes),
            labels=self._rows("labels", start, num_boxes).long(),
            crowd=self._rows("crowd", start, num_boxes),
            area=self._rows("area", start, num_boxes),
            judged=None if num_judged == EVERYTHING else self._rows("judged", judged, num_judged).long(),
        )

    @cached_property
    def image_counts(self) -> NDArray[np.int64]:
        """(number of names,) how many images have a box of each."""
        return self._columns["name_images"].read(0, len(self.names))

    def portrait(self) -> NDArray[np.int64]:
        """(k,) places of the images that are higher than wide; memory is that of `k`."""
        found = [np.flatnonzero(rows["height"] > rows["width"]) + start for start, rows in self._images_in_parts()]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def broken(self) -> list[str]:
        """The columns whose content is not what was written; reads all of it."""
        written = self.summary["columns"]
        return [name for name, column in self._columns.items() if column.checksum() != written[name]["crc32"]]

    def extents(self) -> NDArray[np.int64]:
        """(3, n) height, width and number of boxes of all images."""
        names = ("height", "width", "num_boxes")
        found = [np.stack([rows[name].astype(np.int64) for name in names]) for _, rows in self._images_in_parts()]
        return np.concatenate([np.zeros((3, 0), np.int64), *found], axis=1)

    def boxes_in_parts(self) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Corners (n, 4), crowd (n,) and labels (n,) of a part's boxes, and where in them each of its images' end."""
        for _, rows in self._images_in_parts():
            stops = np.cumsum(rows["num_boxes"])
            first = int(rows["boxes"][0])
            last = first + int(stops[-1])
            boxes, crowd, labels = (self._columns[name].read(first, last) for name in ("boxes", "crowd", "labels"))
            yield boxes, crowd, labels, stops

    def _images_in_parts(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The column of the images and where each part begins; no record is made."""
        for start in range(0, len(self), IMAGES_AT_ONCE):
            yield start, self._columns["images"].read(start, min(start + IMAGES_AT_ONCE, len(self)))

    def _path(self, start: int, num_bytes: int) -> str:
        """As it was when the index was made."""
        return os.fsdecode(self._columns["paths"].read(start, start + num_bytes).tobytes())

    def _place_of_pictures(self) -> tuple[str, str]:
        """The folder of all pictures when the index was made, and today; it is where the first picture is.

        Nowhere: it is taken to be where it was. Indexes of earlier versions do not say it: ("", "").
        """
        root, beside = self.summary.get("root"), self.summary.get("root_from_index")
        if not isinstance(root, str) or not isinstance(beside, str) or not len(self):
            return "", ""
        [row] = self._columns["images"].read(0, 1)
        first = self._path(int(row["path"]), int(row["path_bytes"])).partition("::")[0].removeprefix(root)
        places = [os.path.normpath(self.folder.resolve() / beside), root, *filter(None, [self._pictures])]
        return root, next((str(place) for place in places if Path(f"{place}{first}").is_file()), root)

    def _rows(self, column: str, start: int, count: int) -> Tensor:
        return torch.from_numpy(self._columns[column].read(start, start + count))


def open_index(folder: Path, pictures: Path | None = None) -> Records:
    """The records of a prepared data set, whose images are an `Index`, with its arguments.

    Raises:
        InputError: see `Index`.
    """
    index = Index(folder, pictures)
    names = tuple(index.names)
    return Records(
        images=index,
        names=names,
        category_ids=tuple(index.summary["category_ids"]) or tuple(range(1, len(names) + 1)),
        groups=tuple(index.summary["groups"]) or ("",) * len(names),
        annotations=folder,
        lost={reason: (n, index.summary["examples"][reason]) for reason, n in index.summary["counts"].items()},
    )


def annotation_columns(records: Records) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Parts of a split as `Index.boxes_in_parts` gives them, of an index without a record in memory."""
    images = records.images
    if isinstance(images, Index):
        yield from images.boxes_in_parts()
    elif images:
        columns = (torch.cat([getattr(image, name) for image in images]) for name in ("boxes", "crowd", "labels"))
        boxes, crowd, labels = (column.numpy() for column in columns)
        yield boxes, crowd, labels, np.cumsum([len(image.boxes) for image in images])


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"{folder}: no index is there; make it with trex2 prepare (docs/data.md has the command of each format)"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); prepare the data set again") from error
    if not isinstance(summary, dict) or summary.get("version") != VERSION:
        raise InputError(f"{path}: not an index of version {VERSION}; prepare the data set again")
    if not all(isinstance(summary.get(key), kind) for key, kind in CONTENT.items()):
        raise InputError(f"{path}: lacks a part; prepare the data set again")
    return summary
