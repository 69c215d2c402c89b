"""`make bench-memory`: the table of what training takes of a GPU's memory, in the page of what GPUs take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from trex2_lightning.config import load
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.tables import table
from trex2_lightning.studies.gpu_memory import Footprint, StepKind, footprints
from trex2_lightning.training.callbacks.resources import GIB

EXPERIMENTS = Path("experiments")
LANDSCAPE, SQUARE = (800, 1344), (1344, 1344)  # the largest batch of one orientation, and of both; multiples of 32
MEASURED = 24.0  # GiB, the peak of the first run on an H200


class Counted(NamedTuple):
    """A row of the table: a recipe as it ships, with so many images on a GPU."""

    experiment: str
    images: int
    size: tuple[int, int]  # height and width of the padded batch
    kind: StepKind = "text"
    alone: bool = False  # one GPU without an average of the weights


RUNS = (
    Counted("trex2_swin_t", 8, (800, 1066), alone=True),
    Counted("trex2_swin_t", 8, LANDSCAPE),
    Counted("trex2_swin_t", 8, SQUARE),
    Counted("trex2_swin_t", 4, LANDSCAPE),
    Counted("trex2_swin_t", 4, SQUARE),
    Counted("trex2_swin_t_stage2", 8, LANDSCAPE, "box"),
    Counted("trex2_swin_l", 2, LANDSCAPE),
    Counted("trex2_swin_l", 2, SQUARE),
    Counted("grounding_dino_swin_t", 2, LANDSCAPE),
    Counted("grounding_dino_swin_t", 2, SQUARE),
    Counted("full/word_early", 8, LANDSCAPE),
    Counted("full/phrase_early_stage2", 8, LANDSCAPE, "box"),
)
TEXT = (
    "All tensors that live at the end of the forward pass of a training step under bfloat16 autocast, in GiB, counted "
    "by `make bench-memory` on PyTorch's fake tensors; no GPU was asked. Weights are float32 and counted with their "
    "gradients, DDP's copy of these, AdamW's two moments and the average. Images are the largest of `data.size` and "
    "`data.max_size`, each with ten objects; 800 x 1344 is a batch of one orientation, 1344 x 1344 one of both. Text "
    "asks for the batch's categories and its negatives, of two words each, as far as `model.max_tokens` has room for "
    "them, boxes for the batch's categories with 16 exemplars each and 400 further ones. *Again*: with "
    "`train.checkpoint_activations=true`, the largest layer that is computed again included. Not counted is what a "
    "layer needs only while it is computed, and what CUDA takes: on an H200 the step of the first row, its sampling in "
    f"a trial kernel of the same kind, took {MEASURED} GiB at its peak."
)


def count(run: Counted) -> tuple[Footprint, Footprint]:
    """The run's activations kept, and computed again."""
    few = ("train={devices: 1, nodes: 1, ema_decay: 0}",) if run.alone else ()
    config = load(
        EXPERIMENTS / f"{run.experiment}.yaml", ["train.total_batch=1024", f"data.batch_size={run.images}", *few]
    )
    return footprints(config, *run.size, run.kind)


def write_memory(page: Path, runs: Sequence[Counted] = RUNS) -> None:
    """Count, and write the table between its marks.

    Raises:
        InputError: the page has no such marks.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    marked = re.compile(r"(<!-- memory: [^\n]* -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(marked.findall(text)) != 1:
        raise InputError(f"{page} needs one place `<!-- memory: ... -->` with its `<!-- end -->` for the table")
    content = memory_section([(run, count(run)) for run in runs])
    page.write_text(marked.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text), encoding="utf-8")


def memory_section(counted: Sequence[tuple[Counted, tuple[Footprint, Footprint]]]) -> str:
    """The table as Markdown."""
    head = [
        "experiment",
        "prompts",
        "images",
        "pixels",
        "weights",
        "activations",
        "in all",
        "activations, again",
        "in all, again",
    ]
    return f"{TEXT}\n\n{table(head, (memory_line(run, *found) for run, found in counted))}"


def memory_line(run: Counted, kept: Footprint, again: Footprint) -> list[str]:
    """The cells of a row."""
    parts = (kept.weights, kept.kept, kept.total, again.kept + again.again, again.total)
    name = f"`{run.experiment}`" + (", one GPU, no average" if run.alone else "")
    size = f"{run.size[0]} x {run.size[1]}"
    return [name, run.kind, str(run.images), size, *(f"{part / GIB:.1f}" for part in parts)]
