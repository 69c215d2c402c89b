"""The vectors of generic prompts, from the data set's references."""

from __future__ import annotations

import logging

import lightning as L

from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.prompting.reference_encoder import ReferenceEncoder
from trex2_lightning.structures import PromptTokens
from trex2_lightning.training.module import DetectionModule

log = logging.getLogger(__name__)


def encode_references(
    module: DetectionModule, trainer: L.Trainer, data: DetectionDataModule, names: tuple[str, ...], limit: int
) -> PromptTokens:
    """Up to `limit` visual vectors of every category, (limit, C, D)."""
    encoder = ReferenceEncoder(module.detector, data.draw_references(names, limit), limit, len(names))
    trainer.predict(encoder, datamodule=data, return_predictions=False)
    missing = [name for name, found in zip(names, encoder.prompts.valid[0].tolist(), strict=True) if not found]
    if missing:
        log.warning("no reference image has %s: generic prompts cannot ask for it", ", ".join(missing))
    return encoder.prompts
