"""Settings that a run is told and would not use, which its log says at the start."""

from __future__ import annotations

from trex2_lightning.config import Config
from trex2_lightning.errors import InputError


def unused_settings(config: Config) -> list[str]:
    """A line for each setting that has no effect, and what would give it one.

    Raises:
        InputError: the first steps would train nothing.
    """
    rhythm, negatives, appearance = config.train.rhythm, config.data.negatives, config.model.appearance
    told = []
    if negatives.dictionary and negatives.source == "dataset":
        told.append(f"data.negatives.dictionary={negatives.dictionary} is not read: set data.negatives.source=both")
    if appearance.scale != 1 and not appearance.name:
        told.append(f"model.appearance.scale={appearance.scale} has no effect: set model.appearance.name=backbone")
    if rhythm.visual:
        return told
    if config.optim.visual_first:
        raise InputError(
            f"optim.visual_first={config.optim.visual_first}: these steps train visual prompts alone, of which "
            "train.rhythm.visual=0 has none: set one of the two"
        )
    of_visual = {
        "data.nameless.share": config.data.nameless.share,
        "train.memory_bank.size": config.train.memory_bank.size,
    }
    return told + [f"{key}={value} has no effect: train.rhythm.visual=0" for key, value in of_visual.items() if value]
