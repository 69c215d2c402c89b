"""What all readers share: the record they give, the report they write, and how text becomes boxes.

A reader is a generator function of the files, an `ImageStore` and a `Report`. What one entry of a file has wrong is
counted with its reason and left out; a file that cannot be read at all is an `InputError`.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.data.images.archives import ImageStore, image_size
from trex2_lightning.errors import InputError

NO_BOX = (math.nan,) * 4
NO_FILE = "image file missing"
NO_IMAGE = "image that cannot be read"
BROKEN = (OSError, EOFError, zlib.error)  # what reading a file, perhaps gzipped, raises


class Annotated(NamedTuple):
    """One image and its n boxes."""

    path: str  # of a file, or within an archive (`data.archives`)
    width: int  # pixels
    height: int
    boxes: NDArray[np.float32]  # (n, 4) xyxy in pixels, within the image and with an area there
    names: Sequence[str]  # n category names or phrases; of nameless data, any key of a category within its image
    crowd: NDArray[np.bool_]  # (n,) the box surrounds a group or is to be ignored: no target; ignored in evaluation
    area: NDArray[np.float32]  # (n,) of the object, square pixels; the box's where the file has none
    # Whose presence and all of whose boxes the data set knows here; None: every category of its vocabulary. A category
    # that is judged and has no box is absent; one with a box that is not judged may have more of them.
    judged: Sequence[str] | None = None
    id: int | None = None  # the file's; None: it has no number


class Report:
    """What a reader says besides the images.

    Args:
        watch: opens files otherwise, for a progress bar.
    """

    def __init__(self, watch: Callable[[Path], BinaryIO] | None = None) -> None:
        self.names: list[str] = []  # of a closed vocabulary, in the file's order; known before the first image
        self.category_ids: list[int] = []
        self.groups: list[str] = []
        self.nameless = False  # categories belong to one image each and have no names
        self.counts: Counter[str] = Counter()  # what was left out or mended, by reason
        self.examples: dict[str, str] = {}  # where each reason occurred first
        self.sources: list[Path] = []  # files and folders that were read
        self._watch = watch

    def count(self, reason: str, where: str, number: int = 1) -> None:
        self.counts[reason] += number
        # What a file says may hold half of a surrogate pair, which no terminal prints.
        self.examples.setdefault(reason, where.encode(errors="backslashreplace").decode())

    def open(self, path: Path) -> BinaryIO:
        """The bytes of a file, gunzipped where its name ends in .gz.

        Raises:
            InputError: it cannot be opened.
        """
        self.sources.append(path)
        try:
            file = self._watch(path) if self._watch else path.open("rb")
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give the annotation file") from error
        return gzip.open(file, "rb") if path.suffix == ".gz" else file  # type: ignore[return-value]

    def declare(self, names: Iterable[tuple[int, Any, str]]) -> dict[int, str]:
        """Set the vocabulary from (id, name, group), and return the names by id; equal names become one category."""
        known: dict[str, str] = {}
        by_id: dict[int, str] = {}
        for category_id, given, group in names:
            name = clean(given)
            if not name:
                self.count("category without a name", f"category {category_id}")
            elif category_id in by_id:
                self.count("category id given twice: the first is used", f"category {category_id}")
            elif name.casefold() in known:  # the text encoder sees no case
                self.count("category name given twice: made one", f"category {category_id}, {name}")
                by_id[category_id] = known[name.casefold()]
            else:
                by_id[category_id] = known[name.casefold()] = name
                self.names.append(name)
                self.category_ids.append(category_id)
                self.groups.append(group)
        return by_id


def annotate(
    report: Report,
    where: str,
    path: str,
    size: tuple[int, int],
    boxes: Sequence[Sequence[float]] | NDArray[Any],
    names: Sequence[str],
    crowd: Sequence[bool] | NDArray[np.bool_] | None = None,
    area: Sequence[float] | NDArray[np.float32] | None = None,
    judged: Sequence[str] | None = None,
    image_id: int | None = None,
) -> Annotated:
    """The record of an image from n boxes as a file has them: xyxy in pixels, of whatever quality.

    Boxes are clipped to their image; those without area there, or with a NaN, are left out. Both are counted. A
    category whose box is lost, not outside the image, is not judged: the object may be there.

    Args:
        size: width and height of the image, pixels.
        area: square pixels; a NaN, like None, stands for the box's.
    """
    width, height = size
    raw = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    inside = np.clip(raw, 0, [width, height, width, height])
    finite = np.isfinite(raw).all(1)
    sane = finite & (raw[:, 2:] > raw[:, :2]).all(1)
    corners = inside.astype(np.float32)
    keep = sane & (corners[:, 2:] > corners[:, :2]).all(1)
    if not keep.all():
        for reason, wrong in (
            ("box that is not four finite numbers", ~finite),
            ("box without area", finite & ~sane),
            ("box outside its image", sane & ~keep),
        ):
            if wrong.any():
                report.count(reason, where, int(wrong.sum()))
    clipped = int((np.abs(inside - raw)[keep] > 0.01).any(1).sum())  # files round to two decimals
    if clipped:
        report.count("box that reached out of its image: clipped", where, clipped)
    corners = corners[keep]
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    if area is not None:
        given = np.asarray(area, dtype=np.float32)[keep]
        areas = np.where(np.isfinite(given), given, areas)
    lost = {names[index] for index in np.flatnonzero(~sane).tolist()}
    if lost:
        judged = [name for name in (report.names if judged is None else judged) if name not in lost]
    return Annotated(
        path=path,
        width=width,
        height=height,
        boxes=corners,
        names=[names[index] for index in np.flatnonzero(keep).tolist()],
        crowd=np.zeros(len(corners), np.bool_) if crowd is None else np.asarray(crowd, dtype=np.bool_)[keep],
        area=areas,
        judged=judged,
        id=image_id,
    )


def locate(
    report: Report, store: ImageStore, where: str, *names: Any, size: tuple[Any, Any] | None = None
) -> tuple[str, tuple[int, int]] | None:
    """Path and size of the image with one of `names`, which are counted if none is there; `size` None: read it."""
    texts = [name for name in names if isinstance(name, str) and name]
    if not texts:
        report.count("image without a file name", where)
        return None
    path = store.find(*texts)
    if path is None:
        report.count(NO_FILE, f"{where}: {texts[0]}")
        return None
    known = image_size(path) if size is None else _whole(size)
    if known is None:
        report.count(NO_IMAGE if size is None else "image without width and height", where)
        return None
    return path, known


def xywh(value: Any) -> tuple[float, ...]:
    """Corners of a file's [x, y, width, height]; NaNs where it is none."""
    x, y, width, height = numbers(value)
    return x, y, x + width, y + height


def numbers(value: Any) -> tuple[float, ...]:
    """The four numbers of a list; NaNs where it is none."""
    if isinstance(value, list) and len(value) == 4 and all(type(number) in (int, float) for number in value):
        try:
            return tuple(map(float, value))
        except OverflowError:
            pass
    return NO_BOX


def clean(name: Any) -> str:
    """A category's name without spare blanks; "" where it is not text."""
    if not isinstance(name, str):
        return ""
    try:
        return " ".join(name.split()).encode().decode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return ""


def places(owners: NDArray[Any], count: int) -> Iterator[list[int]]:
    """For each of `count` owners the places at which it stands in `owners`, in their order; -1 is nobody."""
    order = np.argsort(owners, kind="stable")
    stops = np.cumsum(np.bincount(owners + 1, minlength=count + 1))
    for start, stop in pairwise(stops.tolist()):
        yield order[start:stop].tolist()


def is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def dicts(value: Any, report: Report, where: str) -> list[dict[str, Any]]:
    """The objects of a file's list; what is none is counted."""
    listed = value if isinstance(value, list) else [value]
    found = [item for item in listed if isinstance(item, dict)]
    if len(found) < len(listed):
        report.count("box that is not a JSON object", where, len(listed) - len(found))
    return found


def _whole(size: tuple[Any, Any]) -> tuple[int, int] | None:
    if all(type(side) in (int, float) and 0 < side < 2**31 and side == int(side) for side in size):
        return int(size[0]), int(size[1])
    return None
