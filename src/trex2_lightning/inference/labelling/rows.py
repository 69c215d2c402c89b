"""What is known of a picture once it was looked at: a row, and its form as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trex2_lightning.structures import Detection


class LabelRow(NamedTuple):
    """One picture."""

    name: str
    width: int = 0  # pixels, 0 where it was skipped
    height: int = 0
    found: tuple[Detection, ...] = ()  # best first
    doubt: Detection | None = None  # of what was found or nearly found, the one whose score is nearest its threshold
    skipped: str = ""  # why nobody could look at it


def judged_row(
    name: str, size: tuple[int, int], candidates: Sequence[Detection], least: Mapping[str, float]
) -> LabelRow:
    """The row of a picture of `size` (height, width).

    Args:
        candidates: what was found, best first, below its category's threshold too.
        least: thresholds by category.
    """
    rounded = [
        d._replace(score=round(d.score, 5), box=tuple(round(side, 2) for side in d.box))  # type: ignore[arg-type]
        for d in candidates
    ]
    found = tuple(kept for kept, d in zip(rounded, candidates, strict=True) if d.score >= least[d.name])
    doubt = min(rounded, key=lambda d: distance(d, least), default=None)
    return LabelRow(name, size[1], size[0], found, doubt)


def distance(detection: Detection, least: Mapping[str, float]) -> float:
    """Of its score from its category's threshold."""
    return abs(detection.score - least[detection.name])


def to_plain(row: LabelRow) -> dict[str, Any]:
    """As JSON and Arrow have it, without what is empty."""
    if row.skipped:
        return {"name": row.name, "skipped": row.skipped}
    doubt = {"doubt": _flat(row.doubt)} if row.doubt else {}
    return {"name": row.name, "size": [row.width, row.height], "found": [_flat(d) for d in row.found], **doubt}


def from_plain(content: Mapping[str, Any]) -> LabelRow:
    """What `to_plain` was given."""
    if "skipped" in content:
        return LabelRow(content["name"], skipped=content["skipped"])
    doubt = _detection(content["doubt"]) if "doubt" in content else None
    width, height = content["size"]
    return LabelRow(content["name"], width, height, tuple(_detection(values) for values in content["found"]), doubt)


def _flat(detection: Detection) -> list[Any]:
    return [detection.name, detection.score, *detection.box]


def _detection(values: Sequence[Any]) -> Detection:
    name, score, left, top, right, bottom = values
    return Detection(name, score, (left, top, right, bottom))
