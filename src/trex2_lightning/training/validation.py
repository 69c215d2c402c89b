"""What val is asked with while a run trains, by which its best checkpoint is chosen."""

from __future__ import annotations

import logging

from lightning.pytorch.utilities import rank_zero_only

from trex2_lightning.config import Config, ConfigError
from trex2_lightning.data.datamodule import DetectionDataModule
from trex2_lightning.prompting.protocol_names import EXEMPLAR_KINDS
from trex2_lightning.prompting.protocols import Interactive, Prompting, Text
from trex2_lightning.prompting.reference_encoder import GenericAnew
from trex2_lightning.training.build import build_metric
from trex2_lightning.training.module import Measurement

log = logging.getLogger(__name__)

MOST_REFERENCES = 16  # images of a category behind a generic prompt, as in T-Rex2's tables


def validation_of(config: Config, data: DetectionDataModule) -> dict[str, Measurement]:
    """The protocols of `train.best_by` that the run trains, of one pass over val; the log says which are left out.

    Args:
        config: the run.
        data: its data, after `setup("fit")`.

    Raises:
        InputError: none is left, or the reference images cannot be read.
    """
    missing = _missing(config, data)
    chosen = [name for name in config.train.best_by if name not in missing]
    left_out = {name: missing[name] for name in config.train.best_by if name in missing}
    if not chosen:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(f"train.best_by={config.train.best_by} has nothing that this run trains ({reasons})")
    _tell(chosen, left_out)
    records = data.val_records
    return {name: Measurement(_prompting(name, config, data), build_metric(config, records)) for name in chosen}


def _missing(config: Config, data: DetectionDataModule) -> dict[str, str]:
    """Why a protocol cannot choose. Where no step has text, what it finds may be as it was to the bit: the first
    checkpoint would stay the best.
    """
    missing = {} if config.train.rhythm.text else {"text": "no step has text"}
    if not config.train.rhythm.visual:
        visual = [*(f"interactive_{kind}" for kind in EXEMPLAR_KINDS), "generic"]
        return missing | dict.fromkeys(visual, "no step has visual prompts")
    if config.data.exemplars.points in (0, 1):
        never = "box" if config.data.exemplars.points else "point"
        missing |= {f"interactive_{never}": f"no step shows a {never}"}
    return missing if data.has_references else missing | {"generic": "data.reference names no images"}


def _prompting(name: str, config: Config, data: DetectionDataModule) -> Prompting:
    if name == "text":
        return Text()
    if name == "generic":
        names, num_images = data.val_records.names, len(data.val_records.images)
        # No more images than val has, unless that is less than one of each category.
        count = max(1, min(MOST_REFERENCES, num_images // len(names)))
        return GenericAnew(data.draw_references(names, count), data.predict_dataloader, count, len(names))
    return Interactive(config.seed, next(kind for kind in EXEMPLAR_KINDS if name == f"interactive_{kind}"))


@rank_zero_only
def _tell(chosen: list[str], left_out: dict[str, str]) -> None:
    what = f"the mean of AP on val with {', '.join(chosen)}" if len(chosen) > 1 else f"AP on val with {chosen[0]}"
    without = "".join(f"; without {name}: {reason}" for name, reason in left_out.items())
    log.info("best.ckpt is chosen by %s%s", what, without)
