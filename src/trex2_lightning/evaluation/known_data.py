"""Whether what is evaluated is what the checkpoint was trained on, chosen and fitted by, or what it is asked with."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from trex2_lightning.data.inventory import fingerprint_of
from trex2_lightning.data.records import Records

log = logging.getLogger(__name__)
CHOSEN_BY = "data.val"


@rank_zero_only
def warn_of_known_data(
    key: str, forms: Collection[Records], references: Records | None, provenance: Sequence[Mapping[str, Any]]
) -> None:
    """Tell where figures promise too much of other images.

    Args:
        key: the setting that names the split.
        forms: the split as it is evaluated, and as it is without a limit and a group.
        references: what generic prompts are made of; None: of nothing.
        provenance: of the checkpoint, as `training.provenance` has it.
    """
    own = {fingerprint_of(records) for records in forms}
    data = [entry.get("data", {}) for entry in provenance]
    known = {name for sets in data for name, one in sets.items() if one["sha256"] in own}
    if trained := sorted(known - {CHOSEN_BY}):
        log.warning("%s is what it was trained on, %s: the figures say nothing of other images", key, trained[0])
    elif known and key != CHOSEN_BY:
        told = "%s is what data.val was, by which best.ckpt was chosen and scores were fitted: figures are too good"
        log.warning(told, key)
    if references is not None and fingerprint_of(references) in own:
        log.warning("%s is data.reference too: an image's own boxes are among its exemplars", key)
