"""What speaks against publishing a detector under a licence, by what it was made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from trex2_lightning.inference.publishing.terms import TERMS, Terms


class Ingredient(NamedTuple):
    """What a run was made of."""

    what: str  # the setting and what it says
    terms: Terms | None  # None: not known here


def ingredients(entry: Mapping[str, Any]) -> Iterator[Ingredient]:
    """Data and initial weights of one entry of a checkpoint's provenance."""
    named = [f"{key} {weights}" for key, weights in (entry.get("weights") or {}).items() if key != "train.init_from"]
    named += [f"{key} {one['annotations']}" for key, one in (entry.get("data") or {}).items()]
    for what in named:
        known = (terms for terms in TERMS if terms.named and re.search(terms.named, what, re.I))
        yield Ingredient(what, next(known, None))


def allows_commerce(licence: str) -> bool:
    """Whether a licence, by its name on the hub, does not keep others from earning money with what stands under it."""
    return not {"nc", "noncommercial", "research", "academic"} & {*re.split(r"[^a-z]+", licence.lower())}


def objections(licence: str, entries: list[dict[str, Any]]) -> list[str]:
    """What speaks against publishing under a licence; and what is not known, which is as much to look at."""
    told: dict[str, None] = {}
    for part in (part for entry in entries for part in ingredients(entry)):
        if part.terms is None or part.terms.commercial == "unknown":
            told[f"{part.what}: its licence is not known here; look whether it goes with {licence}"] = None
        elif part.terms.commercial != "yes" and allows_commerce(licence):
            told[
                f"{part.what}: {part.terms.name} may rule out commercial use, {licence} does not: {part.terms.why}"
            ] = None
    if not all(entries):
        told["the checkpoint does not say what all of it was trained on: look at its licences yourself"] = None
    return [*told]
