"""What all readers share: the record they give, and how text becomes boxes.

A reader is a generator function of the files, an `ImageStore` and a `Report`. What one entry of a file has wrong is
told to the report, which counts it or ends the reading; a file that cannot be read at all is an `InputError`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.images.archives import MAX_PIXELS, ImageStore, image_size, most_pixels
from trex2_lightning.data.images.file_names import stays_inside

NO_BOX = (math.nan,) * 4
NOT_A_BOX = "box that is not four finite numbers"
NO_FILE = "image file missing"
OUTSIDE = "image file outside its folder"
TRUTHS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}  # as tools write them
NO_IMAGE = "image that cannot be read"


class Annotated(NamedTuple):
    """One image and its n boxes."""

    path: str  # of a file, or within an archive (`data.images.archives`)
    width: int  # pixels
    height: int
    boxes: NDArray[np.float32]  # (n, 4) xyxy in pixels, within the image and with an area there
    names: Sequence[str]  # n category names or phrases; of nameless data, any key of a category within its image
    crowd: NDArray[np.bool_]  # (n,) the box surrounds a group or is to be ignored: no target; ignored in evaluation
    area: NDArray[np.float32]  # (n,) of the object, square pixels; the box's, as it is in the file, where there is none
    # Whose presence and all of whose boxes the data set knows here; None: every category of its vocabulary. A category
    # that is judged and has no box is absent; one with a box that is not judged may have more of them.
    judged: Sequence[str] | None = None
    id: int | None = None  # the file's; None: it has no number
    exemplars: NDArray[np.float32] | None = None  # (m, 4) xyxy in pixels, what counting benchmarks show as prompts
    num_objects: int | None = None  # where a counting benchmark says it


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

    Boxes are clipped to their image; those without area there are left out. Both are counted; one that is not of four
    finite numbers is a defect. A category whose box is lost, not outside the image, is not judged: the object may be
    there.

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
        for tell, reason, wrong in (
            (report.defect, NOT_A_BOX, ~finite),
            (report.count, "box without area", finite & ~sane),
            (report.count, "box outside its image", sane & ~keep),
        ):
            if wrong.any():
                tell(reason, where, int(wrong.sum()))
    in_shares = int((keep & (raw[:, 2:] <= 1).all(1)).sum())
    if in_shares:
        report.count("box within the first pixel of its image, as if in shares of it", where, in_shares)
    clipped = int((np.abs(inside - raw)[keep] > 0.01).any(1).sum())  # files round to two decimals
    if clipped:
        report.count("box that reached out of its image: clipped", where, clipped)
    corners = corners[keep]
    kept_names = [names[index] for index in np.flatnonzero(keep).tolist()]
    again = len(corners) - len({*zip(kept_names, map(tuple, corners.tolist()), strict=True)})
    if again:
        report.count("box given twice: both are kept", where, again)
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
        names=kept_names,
        crowd=np.zeros(len(corners), np.bool_) if crowd is None else np.asarray(crowd, dtype=np.bool_)[keep],
        area=areas,
        judged=judged,
        id=image_id,
    )


def locate(
    report: Report, store: ImageStore, where: str, *names: Any, size: tuple[Any, Any] | None = None
) -> tuple[str, tuple[int, int]] | None:
    """Path and size of the image with the first of `names` that is there; None: there is none that can be used.

    The report is told why.

    Args:
        size: width and height; None: the image is opened for them, unless the report is strict.
    """
    texts = [name for name in names if isinstance(name, str) and name.strip()]
    if not texts:
        report.defect("image without a file name", where)
        return None
    path = store.find(*texts)
    if path is None:
        outside = not any(map(stays_inside, texts))
        report.defect(OUTSIDE if outside else NO_FILE, f"{where}: {texts[0]}")
        return None
    if not path.endswith(tuple(texts)):
        report.count("image found by another spelling of its name", f"{where}: {texts[0]}")
    opened = size is None and not report.strict
    known = image_size(path) if opened else _whole(size)
    if known is None:
        report.defect(NO_IMAGE if opened else "image without width and height", where)
        return None
    return (path, known) if is_small_enough(report, where, known) else None


def is_small_enough(report: Report, where: str, size: tuple[int, int]) -> bool:
    """Whether an image of this width and height can be read; one that cannot is a defect."""
    most = most_pixels()
    if size[0] * size[1] > most:
        report.defect(f"image of more pixels than {MAX_PIXELS}={most}", f"{where}: {size[0]} x {size[1]}")
        return False
    return True


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


def places(owners: NDArray[Any], count: int) -> Iterator[list[int]]:
    """For each of `count` owners the places at which it stands in `owners`, in their order; -1 is nobody."""
    order = np.argsort(owners, kind="stable")
    stops = np.cumsum(np.bincount(owners + 1, minlength=count + 1))
    for start, stop in pairwise(stops.tolist()):
        yield order[start:stop].tolist()


def as_id(value: Any) -> int | None:
    """The whole number of 64 bits that an id is, also where a tool wrote it as text or as 1.0; None: it is none."""
    is_text = isinstance(value, str) and len(value) < 20 and value.isdecimal()
    if is_text or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return value if type(value) is int and abs(value) < 2**63 else None


def count_otherwise(used: Collection[int], known: Collection[int]) -> bool:
    """Whether labels count from another number than the names: one beyond an end is used, the other end never is."""
    if not used or not known:
        return False
    first, last, strange = min(known), max(known), set(used) - set(known)
    return (strange == {last + 1} and first not in used) or (strange == {first - 1} and last not in used)


def as_truth(value: Any) -> bool | None:
    """What a flag says, as whichever type and word a tool wrote it; None: neither true nor false."""
    return TRUTHS.get(str(value).strip().lower())


def dicts(value: Any, report: Report, where: str) -> list[dict[str, Any]]:
    """The objects of a file's list; what is none is counted."""
    listed = value if isinstance(value, list) else [value]
    found = [item for item in listed if isinstance(item, dict)]
    if len(found) < len(listed):
        report.defect("box that is not a JSON object", where, len(listed) - len(found))
    return found


def _whole(size: tuple[Any, Any] | None) -> tuple[int, int] | None:
    if size and all(type(side) in (int, float) and 0 < side < 2**31 and side == int(side) for side in size):
        return int(size[0]), int(size[1])
    return None
