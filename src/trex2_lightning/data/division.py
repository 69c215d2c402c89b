"""A val split for a data set that has none: a stratified tenth of its images, the same whenever it is made.

Iterative stratification: K. Sechidis, G. Tsoumakas, I. Vlahavas, On the Stratification of Multi-Label Data, 2011. n
units, each an image or the images that were made of one.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.index.reading import Index
from trex2_lightning.data.index.writing import build_index
from trex2_lightning.data.records import ImageRecord
from trex2_lightning.errors import InputError

SHARE = 0.1
BACKGROUND = -1  # in place of a label, of images without boxes
COPY = re.compile(r"(.+)\.rf\.\w+$")  # Roboflow's names of the augmented copies of an image


def divide(whole: Index, folder: Path) -> tuple[Index, Index]:
    """Write indexes `train` and `val` to the folder, and `val.txt` with the names of the latter's images, a line each.

    Augmented copies of an image stay together.

    Raises:
        InputError: there are too few images with boxes.
    """
    units: dict[str, list[int]] = {}
    labels: dict[str, set[int]] = {}
    for place, image in enumerate(whole):
        copy = COPY.match(image.path.stem)
        key = str(image.path.with_name(copy[1])) if copy else str(image.path)
        units.setdefault(key, []).append(place)
        labels.setdefault(key, set()).update(image.labels[~image.crowd].tolist())
    keys = [*units]
    chosen = stratified(list(labels.values()))
    if not any(labels[keys[unit]] for unit in chosen):
        raise InputError(f"{whole.folder}: no images can be spared for a val split; give one, or more than one image")
    held = sorted(place for unit in chosen for place in units[keys[unit]])
    rest = sorted(set(range(len(whole))) - set(held))
    parts = [_part(whole, places, folder / name) for name, places in (("train", rest), ("val", held))]
    (folder / "val.txt").write_text("".join(f"{image.path}\n" for image in parts[1]), encoding="utf-8")
    return parts[0], parts[1]


def stratified(labels: Sequence[set[int]], share: float = SHARE) -> set[int]:
    """A share of the units that has each label as often as the others, as far as can be, and at least one of them.

    A unit that alone has a label is not taken.

    Args:
        labels: (n) of each unit; none: it is an image without boxes, of which a share is taken too.
    """
    order = list(range(len(labels)))
    random.Random(0).shuffle(order)
    units_of: dict[int, list[int]] = {}
    for unit in order:
        for label in labels[unit] or {BACKGROUND}:
            units_of.setdefault(label, []).append(unit)
    left = Counter({label: len(units) for label, units in units_of.items()})  # units that are not given away yet
    alone = {label for label, count in left.items() if count == 1}
    wanted = {label: share * count for label, count in left.items()}
    others = {label: count - wanted[label] for label, count in left.items()}
    chosen: set[int] = set()
    given: set[int] = set()
    while left:
        rarest = min(left, key=lambda label: (left[label], label))
        for unit in units_of[rarest]:
            if unit in given:
                continue
            own = labels[unit] or {BACKGROUND}
            room = len(labels) * share - len(chosen)  # in all, which decides between equals
            least = len(labels) * (1 - share) - (len(given) - len(chosen))
            take = (wanted[rarest], room) >= (others[rarest], least)
            given.add(unit)
            if take:
                chosen.add(unit)
            for label in own:
                (wanted if take else others)[label] -= 1
                left[label] -= 1
        left = +left  # without those that have none
    if not any(labels[unit] for unit in chosen):
        spare = [unit for unit in order if labels[unit] and not labels[unit] & alone]
        chosen.update(spare[:1])
    return chosen


def _part(whole: Index, places: Sequence[int], folder: Path) -> Index:
    report = Report()
    report.names = [*whole.names]
    report.category_ids, report.groups = (whole.summary[key] for key in ("category_ids", "groups"))
    report.sources = [whole.folder]
    names = report.names
    return build_index(folder, (_annotated(whole[place], names) for place in places), report, {})


def _annotated(image: ImageRecord, names: Sequence[str]) -> Annotated:
    return Annotated(
        path=str(image.path),
        width=image.width,
        height=image.height,
        boxes=image.boxes.numpy(),
        names=[names[label] for label in image.labels.tolist()],
        crowd=image.crowd.numpy(),
        area=image.area.numpy(),
        judged=None if image.judged is None else [names[label] for label in image.judged.tolist()],
        id=image.id,
    )
