"""What a GPU is measured with: the reference, our detectors with its weights, images, names and targets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from trex2_lightning.errors import InputError
from trex2_lightning.models.compiling import compile_parts
from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.structures import Images, Targets
from trex2_lightning.studies.detector_speed import (
    COCO_LENGTHS,
    LVIS_LENGTHS,
    made_up_names,
    random_detector,
    random_reference,
    sentences,
    write_settings,
)
from trex2_lightning.studies.gpu_timing import Taken, Workload

log = logging.getLogger(__name__)

Fusion = Literal["early", "late"]
PEER = "`transformers`"
OURS: dict[Fusion, str] = {"early": "(word, early)", "late": "(phrase, late)"}
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass
class Bench:
    """A device, what is measured on it, and what was found so far.

    Args:
        device: where all runs.
        work: how much is measured.
        folder: for the weights that all detectors share.
        has_peer: whether `transformers` is there.
        found: by the title of the table and the first cells of the row; a reason where there is nothing to tell.
    """

    device: torch.device
    work: Workload
    folder: Path
    has_peer: bool = field(default_factory=lambda: find_spec("transformers") is not None)
    found: dict[tuple[str, ...], Taken | str] = field(default_factory=dict)

    def reference(self) -> Any:
        """A copy of the reference on the device."""
        return deepcopy(self._reference).to(self.device)

    def detector(self, fusion: Fusion) -> PromptedDetector:
        """A copy of one of our detectors on the device."""
        return deepcopy(self._detectors[fusion]).to(self.device)

    def images(self, number: int) -> Images:
        """Noise, without padding."""
        height, width = self.work.setting.height, self.work.setting.width
        pixels = torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(0))
        valid = torch.ones(number, height, width, dtype=torch.bool)
        images = Images(pixels, valid, torch.tensor([[height, width]] * number))
        return Images(*(tensor.to(self.device) for tensor in images))

    def targets(self, number: int, names: int) -> tuple[Targets, ...]:
        """As many boxes in every image, each of any name."""
        generator = torch.Generator().manual_seed(0)
        found = []
        for image in range(number):
            labels = torch.randint(names, (self.work.boxes,), generator=generator)
            places = 0.25 + 0.5 * torch.rand(self.work.boxes, 2, generator=generator)
            sizes = 0.05 + 0.4 * torch.rand(self.work.boxes, 2, generator=generator)
            found.append(Targets(labels.to(self.device), torch.cat([places, sizes], 1).to(self.device), image))
        return tuple(found)

    def names(self, number: int) -> tuple[str, ...]:
        """Few are as long as COCO's, many as LVIS's."""
        return made_up_names(LVIS_LENGTHS if number == self.work.setting.many else COCO_LENGTHS, number)

    def chunks(self, names: tuple[str, ...]) -> list[Tensor]:
        """The reference's tokens of names, in as many parts as it needs."""
        limit = self._reference.config.max_text_len
        return [tokens.to(self.device) for tokens in sentences(names, limit)]

    def seconds(self, *row: str) -> float | None:
        """What a row took, if it was measured."""
        taken = self.found.get(row)
        return taken.seconds if isinstance(taken, Taken) else None

    def peak(self, *row: str) -> float | None:
        """The most memory of a row, if it was measured."""
        taken = self.found.get(row)
        return taken.peak if isinstance(taken, Taken) else None

    @cached_property
    def _reference(self) -> Any:
        log.info("making random weights")
        with torch.no_grad():
            return random_reference(self.folder, self.work.setting)

    @cached_property
    def _detectors(self) -> dict[Fusion, PromptedDetector]:
        if self.has_peer:
            _ = self._reference  # writes the weights that they read
        else:
            write_settings(self.folder, self.work.setting)
        return {
            "early": random_detector(self.folder, "early", "word", "plain"),
            "late": random_detector(self.folder, "late", "phrase", "scaled"),
        }


@contextmanager
def precision(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Autocast to bfloat16, or float32."""
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        yield


def ratio_of(upper: float | None, lower: float | None) -> float | None:
    """None where either is missing."""
    return upper / lower if upper is not None and lower is not None and lower > 0 else None


def compiled(detector: PromptedDetector) -> Callable[[], None]:
    """Compile backbone and layers in place; what comes back is to be called when they ran.

    It raises InputError where they were not compiled, as a row of it would be one of a detector as it is.
    """
    trial = compile_parts(detector)

    def check() -> None:
        if trial.failed:
            raise InputError("it cannot be compiled here, as the log says")

    return check
