"""What a run on a data set is set to, and why: from what is seen there and what machine it has.

A rule of thumb each, tried on a few small sets of photographs; every one is a setting that the command line overrides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple

from trex2_lightning.finetuning.machine import Machine
from trex2_lightning.finetuning.survey import Survey

PICTURE_SIZES = (224, 288, 352, 416, 480, 544, 608, 640)  # of the shorter side, pixels
LARGEST = {"cpu": 416, "gpu": 640}  # that are chosen
SMALLEST_BOX = 16  # pixels: two cells of the finest feature map
LONGEST_ASPECT = 2.0  # longer side over shorter, beyond which a picture is made smaller
COARSEST = 32  # pixels, of the coarsest feature map
QUERY_COUNTS = (100, 200, 300, 450, 600, 900)
STEP_LIMITS = (300, 20_000)  # fewest and most
VIEWS_PER_BOX, VIEWS_PER_NAME = 200, 100  # pictures seen: so many times the root of the boxes, and for each category
PIXEL_BYTES = 1600  # a step's memory for each pixel of its pictures; 820 were measured at 100 queries
FIXED_BYTES = 3 * 2**29  # the process, its weights and the optimizer
MIRRORED = re.compile(r"\b(left|right|(anti|counter)?-?clockwise)\b", re.IGNORECASE)


class Choice(NamedTuple):
    """A setting, and why it has this value."""

    key: str
    value: str  # as on the command line
    why: str


def choose(found: Survey, machine: Machine, given: Mapping[str, str]) -> list[Choice]:
    """The settings that depend on the data and the machine.

    Args:
        found: in the training split.
        machine: to train on.
        given: settings that somebody has chosen, as on the command line; what depends on them follows them.
    """
    size, why_size = _size(found, machine)
    size = _whole(given, "data.size", size)
    longest = -(-int(size * min(found.aspect, LONGEST_ASPECT)) // COARSEST) * COARSEST
    max_size = max(size, _whole(given, "data.max_size", longest))
    total = max(1, _whole(given, "train.total_batch", 8))
    batch = _whole(given, "data.batch_size", _batch(total, size, max_size, machine))
    steps = _whole(given, "train.max_steps", _steps(found, total))
    gibibytes = machine.memory / 2**30
    queries = next((count for count in QUERY_COUNTS if count >= 1.5 * found.crowded), QUERY_COUNTS[-1])
    flip, why_flip = _flip(found.names)
    workers = min(4, machine.cores - 1) if machine.accelerator == "gpu" else min(1, machine.cores - 1)
    choices = [
        Choice("data.size", str(size), why_size),
        Choice("data.max_size", str(max_size), f"nine of ten pictures are at most {found.aspect:.2f} as long as short"),
        Choice("data.augment.horizontal_flip", flip, why_flip),
        Choice("data.augment.vertical_flip", "0", "photographs have an upside"),
        Choice("data.augment.crop", "0.5", "things in other sizes and places"),
        Choice("model.num_queries", str(queries), f"pictures have up to {found.crowded} boxes"),
        Choice("eval.max_detections", str(queries), "as many boxes as it can find"),
        Choice("train.accelerator", machine.accelerator, machine.device + _others(machine)),
        Choice("data.batch_size", str(batch), f"{gibibytes:.1f} GiB are free: half of them hold that many pictures"),
        Choice("train.total_batch", str(total), "what the learning rates were tried with"),
        Choice("eval.batch_size", str(batch), "as in training"),
        Choice("data.num_workers", str(workers), f"{machine.cores} cores"),
        Choice(
            "train.max_steps",
            str(steps),
            f"{steps * total:,} pictures seen, {steps * total / found.num_images:.3g} times each, for "
            f"{found.num_boxes:,} boxes of {len(found.names)} categories",
        ),
        Choice("train.val_every", str(max(1, -(-steps // 3))), "three evaluations"),
        Choice("optim.warmup_steps", str(min(100, steps // 10)), "a tenth of the steps, at most 100"),
    ]
    return [choice for choice in choices if not _is_given(choice.key, given)]


def _size(found: Survey, machine: Machine) -> tuple[int, str]:
    """The least that shows all but the smallest tenth of the boxes, within what pictures and machine have."""
    wanted = next((size for size in PICTURE_SIZES if size * found.small >= SMALLEST_BOX), PICTURE_SIZES[-1])
    own = next((size for size in PICTURE_SIZES if size >= found.short_side), PICTURE_SIZES[-1])
    size = min(wanted, own, LARGEST[machine.accelerator])
    pixels = size * found.small
    why = f"a tenth of the boxes have less than {pixels:.0f} x {pixels:.0f} pixels then"
    if pixels >= SMALLEST_BOX:
        return size, why
    limit = (
        "the pictures have no more" if own == size else f"the most that is chosen for a {machine.accelerator.upper()}"
    )
    return (
        size,
        f"{why}, which is little: {SMALLEST_BOX} would take data.size={SMALLEST_BOX / found.small:.0f}; {limit}",
    )


def _flip(names: Sequence[str]) -> tuple[str, str]:
    if all(len(name) == 1 for name in names):
        return "0", "characters mirrored are others, or none"
    if mirrored := next((name for name in names if MIRRORED.search(name)), ""):
        return "0", f"{mirrored} mirrored is its opposite"
    return "0.5", "no name says left or right, nor are they characters"


def _batch(total: int, size: int, max_size: int, machine: Machine) -> int:
    room = machine.memory / 2 - FIXED_BYTES
    fitting = (count for count in range(total, 1, -1) if total % count == 0)
    return next((count for count in fitting if count * size * max_size * PIXEL_BYTES <= room), 1)


def _steps(found: Survey, total: int) -> int:
    views = VIEWS_PER_BOX * sqrt(found.num_boxes) + VIEWS_PER_NAME * len(found.names)
    fewest, most = STEP_LIMITS
    return min(most, max(fewest, round(views / total / 100) * 100))


def _others(machine: Machine) -> str:
    return f", the first of {machine.num_gpus}" if machine.num_gpus > 1 else ""


def _is_given(key: str, given: Mapping[str, str]) -> bool:
    """Itself, or a section that it is in."""
    return any(key == other or key.startswith(f"{other}.") for other in given)


def _whole(given: Mapping[str, str], key: str, default: int) -> int:
    """A value that is no whole number is refused where all settings are read."""
    value = given.get(key, "")
    return int(value) if value.isdigit() else default
