"""Checkpoints and saved configurations of earlier formats, brought to today's.

One number serves the settings, the names of weights and what lies beside them in a checkpoint: they are saved together,
and with a number each somebody would have to say which settings go with which weights. It stands in the settings, as
`format`, since these are in every checkpoint and in every `config.yaml`. A checkpoint without a number is of format 0.

To change a format: add an entry to `MIGRATIONS`, and a case to tests/config/test_migrations.py, which asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trex2_lightning.config.checks import ConfigError
from trex2_lightning.structures import IMAGENET_PIXELS

Checkpoint = dict[str, Any]  # `config`, and of a whole checkpoint `state_dict` and more
log = logging.getLogger(__name__)

ANYTHING = object()


def migrate(checkpoint: Checkpoint, source: str | Path) -> None:
    """Bring a checkpoint, or settings alone as its `config`, to today's format, in place.

    Args:
        checkpoint: of any format up to today's.
        source: where it comes from, for messages.

    Raises:
        ConfigError: its format is newer than this program, or it had a setting that is no longer possible.
    """
    found = checkpoint["config"].get("format", 0)
    if not isinstance(found, int) or found < 0:
        raise ConfigError(f"{source}: format: {found} is no whole number: take the file as it was written")
    if found > CONFIG_FORMAT:
        raise ConfigError(
            f"{source} has format {found}, but this version reads formats up to {CONFIG_FORMAT}: update trex2_lightning"
        )
    for number in range(found + 1, CONFIG_FORMAT + 1):
        for change in MIGRATIONS[number]:
            try:
                change(checkpoint)
            except ConfigError as error:
                raise ConfigError(f"{source}: {error}") from error
    checkpoint["config"]["format"] = CONFIG_FORMAT


def what_became_of(key: str) -> str:
    """Of a setting that there was in an earlier format; "" if there was none."""
    changes = [change for changes in MIGRATIONS.values() for change in changes]
    return next((c.became for c in changes if isinstance(c, Renamed | Removed) and c.key == key), "")


@dataclass(frozen=True)
class Renamed:
    """A setting that has another key now."""

    key: str
    new: str

    @property
    def became(self) -> str:
        return f"it is called {self.new} now"

    def __call__(self, checkpoint: Checkpoint) -> None:
        old, name = _section(checkpoint["config"], self.key)
        if name in old:
            *sections, new_name = self.new.split(".")
            new = checkpoint["config"]
            for section in sections:
                new = new.setdefault(section, {})
            new[new_name] = old.pop(name)


@dataclass(frozen=True)
class Removed:
    """A setting that is gone.

    Where it had another value than `value`, it is refused, as the run would not be what it was; another than `default`
    is told.
    """

    key: str
    became: str  # of what it decided
    value: Any = ANYTHING
    default: Any = ANYTHING

    def __call__(self, checkpoint: Checkpoint) -> None:
        section, name = _section(checkpoint["config"], self.key)
        found = section.pop(name, ANYTHING)
        if found is ANYTHING:
            return
        if self.value is not ANYTHING and found != self.value:
            raise ConfigError(f"{self.key}={found} is no longer possible: {self.became}")
        if self.default is not ANYTHING and found != self.default:
            log.warning("%s=%s has no effect any more: %s", self.key, found, self.became)


@dataclass(frozen=True)
class FormerDefault:
    """A setting that there was not, or with another default: without it a run was as `value` has it."""

    key: str
    value: Any

    def __call__(self, checkpoint: Checkpoint) -> None:
        section, name = _section(checkpoint["config"], self.key)
        if section:
            section.setdefault(name, self.value)


@dataclass(frozen=True)
class RenamedWeights:
    """A module that has another name now; both end in a dot, or are whole names."""

    prefix: str
    new: str

    def __call__(self, checkpoint: Checkpoint) -> None:
        for part in ("state_dict", "current_model_state"):  # the second: beside averaged weights, to resume from
            if part in checkpoint:
                checkpoint[part] = {
                    self.new + name.removeprefix(self.prefix) if name.startswith(self.prefix) else name: tensor
                    for name, tensor in checkpoint[part].items()
                }


def visual_training_told(checkpoint: Checkpoint) -> None:
    """The first checkpoints do not say whether visual prompts were trained: their own run's rhythm does."""
    rhythm, name = _section(checkpoint["config"], "train.rhythm.visual")
    checkpoint.setdefault("visual_trained", bool(rhythm.get(name, 0)))


def best_by_one(checkpoint: Checkpoint) -> None:
    """The best checkpoint was that of text, or of boxes where no step has text."""
    train, name = _section(checkpoint["config"], "train.best_by")
    if train:
        train.setdefault(name, ["text"] if train.get("rhythm", {}).get("text", 1) else ["interactive_box"])


def imagenet_pixels(checkpoint: Checkpoint) -> None:
    """Whatever its backbone, pixels were normalised with ImageNet's mean and deviation."""
    backbone, _ = _section(checkpoint["config"], "model.backbone.mean")
    if backbone:
        backbone |= {"mean": [*IMAGENET_PIXELS.mean], "std": [*IMAGENET_PIXELS.std]}


def share_has_a_scale(checkpoint: Checkpoint) -> None:
    """What appearance's shares are made of was divided by the temperature of its likeness."""
    name = "detector.appearance."
    for part in ("state_dict", "current_model_state"):
        state = checkpoint.get(part, {})
        if f"{name}temperature" in state:
            state.setdefault(f"{name}logit_scale", 1 / state[f"{name}temperature"])


def _section(settings: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """What holds the last name of a dotted key, empty where there is no such section, and that name."""
    *sections, name = key.split(".")
    for section in sections:
        settings = settings.get(section, {})
        if not isinstance(settings, dict):
            return {}, name
    return settings, name


# By the format that it leads to, from the one before it.
MIGRATIONS: dict[int, tuple[Callable[[Checkpoint], None], ...]] = {
    1: (
        Removed("eval.backend", "faster_coco_eval counts, whose figures are pycocotools'", default="faster_coco_eval"),
        Removed("eval.num_pictures", "the table of pictures at W&B has eight", default=8),
        visual_training_told,
    ),
    2: (
        imagenet_pixels,
        FormerDefault("data.negatives.foreign", 0),
        FormerDefault("loss.alignment.scope", "image"),
        FormerDefault("loss.alignment.normalize", False),
        FormerDefault("loss.alignment.temperature", 1.0),
        FormerDefault("loss.alignment.detach_text", False),
    ),
    3: (best_by_one,),
    4: (share_has_a_scale,),
}
CONFIG_FORMAT = max(MIGRATIONS)
