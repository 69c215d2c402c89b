"""What images of an evaluation can be asked with, by name; `protocols.py` has what each is."""

from __future__ import annotations

from typing import get_args

from trex2_lightning.structures import ExemplarKind

EXEMPLAR_KINDS = get_args(ExemplarKind)
TEXT_CONTROLS = ("random_phrases", "foreign_phrases")  # what stands in the names' place
TEXT_PROTOCOLS = ("text", *TEXT_CONTROLS, "hinted_text")
PROTOCOLS = (
    *(*TEXT_PROTOCOLS, *(f"interactive_{kind}" for kind in EXEMPLAR_KINDS), "wrong_pictures"),
    *("generic", "random_references", "mixed", "mixed_mean", "region_classification"),
)
OWN_EXEMPLARS = "exemplars"  # the protocol of data sets that bring their prompts, as counting benchmarks do
FROM_REFERENCES = {"generic", "random_references", "mixed", "mixed_mean"}
BY_LEARNED_VECTORS = {"mixed_mean", "region_classification"}  # of exemplars, whatever their appearance
