"""What a run can learn from its data and be judged by, counted before it starts.

A set of crowds, a val split without boxes or phrases that no image judges train to the end and leave nothing.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trex2_lightning.data.images.image_files import ImageError, read_image
from trex2_lightning.data.index.reading import COLUMNS, Index, annotation_columns
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.errors import InputError

log = logging.getLogger(__name__)

ANNOTATED = (
    "sizes",
    "boxes",
    "labels",
    "crowd",
    "area",
    "judged",
    "names",
    "name_stops",
)  # columns of an index, and the images
LARGE = 0.05  # of the boxes: what is lost or of no use without being meant so
JUDGED_LOOKED_AT = 2000  # images of an index
NAMES_TOLD = 10  # names with the most boxes, and with the fewest
READ_AT_ONCE = 1000  # records in memory while images are read


class SetAudit(NamedTuple):
    """One split or data set of a run."""

    key: str  # the setting that names it
    place: str  # its file or index
    num_images: int
    with_targets: int  # images that have one
    targets: int  # boxes that are no crowds and at least a pixel wide and high
    crowds: int
    thin: int  # boxes under a pixel: augmentation leaves them out
    num_names: int
    found_names: int  # of which there is a target
    negatives: int | None  # phrases that a batch can be asked for beside its own; None: not asked by text
    judges: bool  # whether any image knows what it does not have
    lost: Mapping[str, tuple[int, str]]  # of the reader: how many and where first, by reason
    fingerprint: str = ""  # as of `fingerprint_of`
    targets_of: tuple[tuple[str, int], ...] = ()  # of each name, most first; of many names both ends

    @property
    def line(self) -> str:
        """One sentence of numbers."""
        names = f" of {self.found_names} of its {self.num_names} names" if self.num_names else ""
        negatives = "" if self.negatives is None else f", {self.negatives} phrases to draw negatives from"
        return (
            f"{self.key} ({self.place}): {self.num_images} images, {self.with_targets} with boxes to learn; "
            f"{self.targets} of them{names}{negatives}"
        )

    @property
    def by_name(self) -> str:
        """How many of each name, in one line; "": there are no names."""
        told = [f"{name} {count:,}" for name, count in self.targets_of]
        return ", ".join([*told[:NAMES_TOLD], *["..."] * (self.num_names > len(told)), *told[NAMES_TOLD:]])

    @property
    def unusable(self) -> list[str]:
        """Boxes that are there and are no targets, by reason."""
        told = [f"{number} x {reason} ({where})" for reason, (number, where) in self.lost.items()]
        if self.crowds:
            told.insert(0, f"{self.crowds} are crowds (iscrowd=1, as some tools mark brushed masks)")
        if self.thin:
            told.insert(0, f"{self.thin} are less than a pixel wide or high")
        return told


def audit_split(
    key: str, records: Records, *, negatives: int | None = None, nameless: bool = False, evaluated: bool = False
) -> SetAudit:
    """Count what one split has; all of it is looked through.

    Args:
        key: the setting that names it.
        records: the split.
        negatives: see `SetAudit`.
        nameless: its categories have no names.
        evaluated: it is for evaluation, where no augmentation leaves boxes out.
    """
    targets = crowds = thin = with_targets = 0
    counts = np.zeros(0 if nameless else len(records.names), np.int64)
    for corners, crowd, labels, stops in annotation_columns(records):
        sides = (corners[:, 2:] - corners[:, :2]).min(1, initial=np.inf)
        small = ~crowd & (sides < (0 if evaluated else 1))
        usable = ~crowd & ~small
        targets, crowds, thin = targets + int(usable.sum()), crowds + int(crowd.sum()), thin + int(small.sum())
        before = np.concatenate([[0], np.cumsum(usable)])
        with_targets += int((np.diff(before[np.concatenate([[0], stops])]) > 0).sum())
        if len(counts):
            counts += np.bincount(labels[usable], minlength=len(counts))
    return SetAudit(
        key,
        str(records.annotations),
        len(records.images),
        with_targets,
        targets,
        crowds,
        thin,
        len(counts),
        int((counts > 0).sum()),
        negatives,
        _judges(records),
        records.lost,
        fingerprint_of(records),
        _both_ends(records.names, counts),
    )


def fingerprint_of(records: Records) -> str:
    """SHA-256 of what is annotated: images' sizes, boxes, categories and what is judged, in the order of the images.

    Wherever it lies, and of a file as of the index that was made of it. An index of millions of images has the
    checksums of its columns, and is not read for it.
    """
    summed = {name: checksum for name, checksum in _checksums(records) if name in ANNOTATED}
    told = [len(records.images), *(summed[name] for name in ANNOTATED)]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def log_audits(audits: list[SetAudit]) -> None:
    """The numbers."""
    for one in audits:
        log.info("%s", one.line)
        if one.by_name:
            log.info("%s: boxes of each name: %s", one.key, one.by_name)


def check(audits: list[SetAudit]) -> None:
    """Warn of what is lost, and refuse what nothing can come of.

    Raises:
        InputError: a set or split has no target; or text steps can have batches without anything to ask for.
    """
    for one in audits:
        check_usable(one)
    for one in audits:
        whole = one.targets + one.crowds + one.thin
        unmeant = {"boxes are crowds: no targets": (one.crowds, ""), "boxes under a pixel": (one.thin, "")}
        for reason, (number, where) in {**unmeant, **one.lost}.items():
            if number > LARGE * (whole + number * (reason in one.lost)):
                log.warning("%s: %d x %s%s", one.key, number, reason, f" ({where})" * bool(where))
        if one.negatives == 0:
            if one.with_targets < one.num_images:
                raise InputError(
                    f"{one.key}: nothing to draw negatives from, so images without boxes are asked for nothing; set "
                    "data.negatives.foreign=16, data.negatives.source=dictionary, or for grounding data a lower "
                    "data.negatives.more_than"
                )
            log.warning("%s: nothing to draw negatives from: training never asks for what is not there", one.key)
        elif one.negatives and not one.judges:
            log.warning(
                "%s: no image says which categories it does not have, so negatives teach nothing; prepare ODVG with "
                "its label map, if every category is marked wherever it is",
                one.key,
            )


def check_usable(one: SetAudit) -> None:
    """Raises InputError: it has no target."""
    if not one.targets:
        reasons = "; ".join(one.unusable) or "there is no box in it"
        raise InputError(
            f"{one.key} ({one.place}): none of its {one.num_images} images has a box to use: {reasons}; mend the "
            "file, or give another one"
        )


def check_images(key: str, images: Sequence[ImageRecord], threads: int, rank: int = 0, world: int = 1) -> None:
    """Read the images of a split that is evaluated, which takes them all; each of `world` ranks its share.

    Raises:
        ImageError: some cannot be.
    """
    places = range(rank, len(images), world)
    errors: list[str] = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for start in range(0, len(places), READ_AT_ONCE):
            some = (images[place] for place in places[start : start + READ_AT_ONCE])
            errors += filter(None, pool.map(_why_unreadable, some))
    if errors:
        raise ImageError(
            f"{key}: {len(errors)} of {len(places)} images cannot be read, and figures without them would not be what "
            f"they claim to be: {errors[0]}; restore the files, or remove them from the annotations"
        )


def _why_unreadable(record: ImageRecord) -> str:
    try:
        read_image(record.path, (record.height, record.width))
    except ImageError as error:
        return str(error)
    return ""


def _both_ends(names: Sequence[str], counts: NDArray[np.int64]) -> tuple[tuple[str, int], ...]:
    """The names with the most boxes and with the fewest, by their number."""
    order = np.argsort(-counts, kind="stable").tolist()
    chosen = order if len(order) <= 2 * NAMES_TOLD else [*order[:NAMES_TOLD], *order[-NAMES_TOLD:]]
    return tuple((names[label], int(counts[label])) for label in chosen)


def _judges(records: Records) -> bool:
    step = max(1, len(records.images) // JUDGED_LOOKED_AT) if isinstance(records.images, Index) else 1
    looked_at = (records.images[place] for place in range(0, len(records.images), step))
    return any(
        image.judged is None or not set(image.judged.tolist()) <= set(image.labels.tolist()) for image in looked_at
    )


def _checksums(records: Records) -> Iterator[tuple[str, int]]:
    """CRC-32 of columns, as an index has them; of the images, height, width and number of boxes."""
    if isinstance(records.images, Index):
        yield "sizes", zlib.crc32(records.images.extents().tobytes())
        yield from ((name, column["crc32"]) for name, column in records.images.summary["columns"].items())
        return
    images, names = records.images, [name.encode() for name in records.names]
    sizes = np.asarray([(image.height, image.width, len(image.boxes)) for image in images], np.int64).reshape(-1, 3)
    yield "sizes", zlib.crc32(sizes.T.tobytes())
    parts: dict[str, list[Any]] = {
        name: [getattr(image, name) for image in images] for name in ("boxes", "labels", "crowd", "area")
    }
    parts["judged"] = [image.judged for image in images if image.judged is not None]
    for name, tensors in parts.items():
        kind = COLUMNS[name][0]
        yield name, zlib.crc32(b"".join(tensor.numpy().astype(kind).tobytes() for tensor in tensors))
    yield "names", zlib.crc32(b"".join(names))
    yield "name_stops", zlib.crc32(np.cumsum([len(name) for name in names], dtype=np.int64).tobytes())
