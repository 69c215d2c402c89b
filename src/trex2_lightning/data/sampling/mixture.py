"""Several data sets in one training: what is read of them, how often each has its turn, and what it is asked for.

An optimizer step takes its images from one set, so that a batch has one vocabulary and one kind of data (`stream`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from trex2_lightning.config import DataConfig, RhythmConfig, SetConfig
from trex2_lightning.data.annotations.declaration import Format
from trex2_lightning.data.formats import format_named
from trex2_lightning.data.index.reading import Index
from trex2_lightning.data.opening import is_there, open_records
from trex2_lightning.data.records import ImageRecord, Records
from trex2_lightning.data.sampling.foreign import foreign_names
from trex2_lightning.data.sampling.sharing import SharedCategories
from trex2_lightning.data.sampling.vocabulary import NO_FOREIGN, ForeignNames, Nearest, NearNames, negative_pool
from trex2_lightning.errors import InputError

log = logging.getLogger(__name__)
# Detection judges all its names in every image; grounding the phrases of its own caption; nameless has no names.
SetKind = Literal["detection", "grounding", "nameless"]


class TrainSet(NamedTuple):
    """A data set that training takes images from."""

    images: Sequence[ImageRecord]
    names: Sequence[str] = ()  # in label order
    pool: Sequence[str] = ()  # phrases that its negatives are drawn from
    kind: SetKind = "detection"
    text: float = 1.0  # its weight among the sets of text steps
    visual: float = 1.0  # and of visual steps
    name: str = ""  # its order of images depends on it; "": the only set of its kind
    shared: SharedCategories | None = None  # needed for cross-image steps
    foreign: ForeignNames = NO_FOREIGN  # of its text steps
    records: Records | None = None  # what it was read from
    near: NearNames | None = None  # hard negatives
    portrait: NDArray[np.int64] = np.zeros(0, np.int64)  # (k,) images that have steps of their own, k / all of them

    @property
    def key(self) -> str:
        """The setting that names it."""
        return f"data.sets.{self.name}" if self.name else "data.nameless" if self.kind == "nameless" else "data.train"

    @property
    def portrait_share(self) -> float:
        return len(self.portrait) / max(len(self.images), 1)


def read_mixture(config: DataConfig, rhythm: RhythmConfig) -> list[TrainSet]:
    """The sets of `data.sets` that have steps in the rhythm; the log names what has none, `data.train` among it.

    Raises:
        InputError: a set is missing or broken, its format unknown or of another kind; the message has the commands
            that prepare all that are missing.
    """
    root = Path(config.root)
    used = {name: some for name, some in config.sets.items() if some.text * rhythm.text + some.visual * rhythm.visual}
    rank_zero_only(log.info)("data.train (%s) is not trained on: data.sets has its place", config.train.annotations)
    for name, some in config.sets.items():
        if name not in used:
            told = "data.sets.%s is not trained on: its weights are text=%g, visual=%g, and steps text=%d, visual=%d"
            rank_zero_only(log.info)(told, name, some.text, some.visual, rhythm.text, rhythm.visual)
    forms = {name: format_named(some.format, f"data.sets.{name}.format") for name, some in used.items()}
    for name, form in forms.items():  # of an index, the format is only told where it is missing
        is_read = form.is_direct(root / used[name].annotations)
        if used[name].kind not in form.kinds and (is_read or not form.kinds):
            raise InputError(
                f"data.sets.{name}.kind={used[name].kind}: the format {form.name} is for "
                f"{' or '.join(form.kinds) or 'evaluation alone'}; set data.sets.{name}.kind= or leave the set out"
            )
    missing = [name for name, some in used.items() if not is_there(root / some.annotations)]
    if missing:
        ways = "; ".join(_preparation(root / used[name].annotations, forms[name]) for name in missing)
        raise InputError(
            f"{root}: of data.sets, {', '.join(missing)} are not there; set data.root= to the folder that has them, "
            f"leave them out by weights of 0, or prepare them (docs/data.md says from what): {ways}"
        )
    opened = cache(open_records)
    records = {name: opened(root / some.annotations, root / some.images, forms[name]) for name, some in used.items()}
    for name, some in used.items():
        check_names(records[name], some.kind, f"data.sets.{name}.kind=nameless")
    dictionary = phrase_dictionary(
        [(records[name], some) for name, some in used.items() if some.text], config.negatives.more_than
    )
    return [
        TrainSet(
            records[name].images,
            records[name].names,
            negative_pool(config.negatives, dictionary if some.kind == "grounding" else annotated_names(records[name])),
            some.kind,
            some.text,
            some.visual,
            name,
            shared_categories(records[name]) if config.exemplars.cross_image and some.visual else None,
            foreign_names(
                records[name].names,
                len(annotated_names(records[name])),
                config.negatives.foreign if some.kind == "detection" and some.text * rhythm.text else 0,
                f"data.sets.{name}",
            ),
            records[name],
        )
        for name, some in used.items()
    ]


def with_nameless(sets: Sequence[TrainSet], images: Sequence[ImageRecord], share: float) -> list[TrainSet]:
    """The sets and one of images without names, which has that share of the visual steps."""
    total = sum(some.visual for some in sets) or 1.0
    named = [some._replace(visual=some.visual / total * (1 - share)) for some in sets]
    return [*named, TrainSet(images, kind="nameless", text=0.0, visual=share)]


def with_near(sets: Sequence[TrainSet], nearest: Nearest, share: float) -> list[TrainSet]:
    """The sets with that share of their negatives drawn from the nearest phrases of their pools."""
    return [some._replace(near=NearNames(nearest(some.pool), share)) for some in sets]


def shared_categories(records: Records) -> SharedCategories:
    """Raises InputError: no two images share a category."""
    shared = SharedCategories([image.labels[~image.crowd] for image in records.images])
    if not len(shared.images):
        raise InputError(
            f"{records.annotations}: no two images have a category in common; set data.exemplars.cross_image=0"
        )
    return shared


def phrase_dictionary(sets: Sequence[tuple[Records, SetConfig]], more_than: int) -> tuple[str, ...]:
    """What grounding data draws its negatives from: category names of detection data that have a box, and phrases that
    more than so many images of all sets together have (T-Rex2, section 3.3). Case tells nothing.
    """
    counts: Counter[str] = Counter()
    spelled: dict[str, str] = {}
    categories = set()
    for records, files in sets:
        for name, number in zip(records.names, image_counts(records).tolist(), strict=True):
            key = name.casefold()
            counts[key] += number
            spelled.setdefault(key, name)
            if files.kind == "detection" and number:
                categories.add(key)
    return tuple(name for key, name in spelled.items() if key in categories or counts[key] > more_than)


def check_names(records: Records, kind: SetKind, mend: str) -> None:
    """Raises InputError: text is to be made of a data set without names."""
    if kind != "nameless" and isinstance(records.images, Index) and records.images.summary["nameless"]:
        raise InputError(f"{records.annotations}: its categories have no names: it is for {mend}")


def annotated_names(records: Records | TrainSet) -> list[str]:
    """Names with a box in the split: others may be held out, and as negatives they would be trained away."""
    return [records.names[label] for label in image_counts(records).nonzero()[0].tolist()]


def image_counts(records: Records | TrainSet) -> NDArray[np.int64]:
    """(number of names,) how many images have a box of each."""
    if isinstance(records.images, Index):
        return records.images.image_counts
    labels = [np.zeros(0, np.int64), *(np.unique(image.labels.numpy()) for image in records.images)]
    return np.bincount(np.concatenate(labels), minlength=len(records.names))


def _preparation(place: Path, form: Format) -> str:
    if form.is_direct(place) or not form.indexed:
        return f"{place} is a file of the format {form.name} to be put there"
    return f"trex2 prepare {form.name} {form.usage} {place}"


def known_images(sets: Sequence[TrainSet], limit: int, seed: int) -> tuple[list[ImageRecord], list[str]]:
    """Up to `limit` random images with boxes of sets with names; their labels are those of all these sets together.

    Returns:
        The images, and the names that the labels index.
    """
    named = [some for some in sets if some.kind == "detection"]
    stops = np.cumsum([len(some.images) for some in named])
    images: list[ImageRecord] = []
    for place in np.random.default_rng(seed).permutation(stops[-1] if named else 0).tolist():
        number = int(np.searchsorted(stops, place, "right"))
        record = named[number].images[place - int(stops[number])]  # counted from the set's end
        if not record.crowd.all():
            before = sum(len(some.names) for some in named[:number])
            images.append(record._replace(labels=record.labels + before))
        if len(images) == limit:
            break
    return images, [name for some in named for name in some.names]
