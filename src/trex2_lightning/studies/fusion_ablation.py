"""`make ablation-fusion`: {phrase, word} x {late, early} on `shapes`, what each cell finds and what it costs.

A run or a measurement that is there already is not repeated. Trainings run side by side; what is measured afterwards
has the machine for itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from trex2_lightning.config import Config, load, override
from trex2_lightning.data.shapes.layout import categories
from trex2_lightning.evaluation import costs
from trex2_lightning.evaluation.history import average_precision, read_history
from trex2_lightning.evaluation.tables import console, flat
from trex2_lightning.structures import Prompts
from trex2_lightning.studies import claims
from trex2_lightning.studies.fusion_page import Cell, page
from trex2_lightning.studies.sweep import Runs, finish, folders
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.trainer import wandb_logger

CELLS = ("phrase_late", "phrase_early", "word_late", "word_early")
FILES = Path("experiments/ablation")
# What a cell goes on with from its own weights; a flipped picture would turn left into right.
GO_ON = [
    *("data.train.annotations=relations_train.json", "data.train.images=relations_train"),
    *("data.val.annotations=relations.json", "data.val.images=relations", *claims.ON_RELATIONS),
    *("data.augment.horizontal_flip=0", "train.max_steps=500", "train.val_every=500", "logging.job_type=relations"),
]
QUICK = ["train.max_steps=10", "train.val_every=10", "logging.every=5"]


def compare_fusion(
    seeds: Sequence[int], jobs: int, output: Path, target: Path | None, overrides: Sequence[str], *, quick: bool
) -> Path:
    """Train, evaluate and measure what is not there yet, and write the page.

    Args:
        seeds: of every cell.
        jobs: trainings at the same time, on one thread each.
        output: folder of the runs.
        target: file to write; None: docs/ablation_fusion.md, of `quick` beside its runs.
        overrides: configuration values of every run.
        quick: a few steps, to see that everything works.

    Returns:
        The file that was written.
    """
    name = "ablation/fusion_quick" if quick else "ablation/fusion"
    folder = output / name
    target = target or (folder / "ablation_fusion.md" if quick else Path("docs/ablation_fusion.md"))
    wanted = list(product(seeds, CELLS))
    last = [*(QUICK if quick else []), *overrides]

    def train(cell: str, seed: int) -> None:
        row = f"{cell}_{seed}"
        finish(folder / row, FILES / f"{cell}.yaml", [f"name={name}/{row}", *own(seed), *last])

    def go_on(cell: str, seed: int) -> None:
        row = f"{cell}_relations_{seed}"
        start = f"train.init_from={folder / f'{cell}_{seed}' / 'checkpoints' / 'last.ckpt'}"
        finish(folder / row, FILES / f"{cell}.yaml", [f"name={name}/{row}", *own(seed), *GO_ON, start, *last])

    def own(seed: int) -> list[str]:
        return [f"output={output}", f"seed={seed}"]

    with ThreadPoolExecutor(jobs) as pool:
        for step in (train, go_on):
            list(pool.map(step, [cell for _, cell in wanted], [seed for seed, _ in wanted]))
    for seed, cell in wanted:
        file = folder / f"{cell}_{seed}" / "measures.json"
        if not file.exists():
            found = measured(file.parent, folder / f"{cell}_relations_{seed}")
            file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        console.print(f"{file}", soft_wrap=True)
    cell_file = FILES / f"{CELLS[0]}.yaml"
    relation_steps = load(cell_file, [*GO_ON, *last]).train.max_steps
    target.write_text(page(_finished(folder), load(cell_file, last), relation_steps), encoding="utf-8")
    return target


def measured(folder: Path, relations: Path) -> dict[str, Any]:
    """What a trained cell costs and what became of each claim; goes to W&B too, as a run of its own in the same group.

    Args:
        folder: of the run.
        relations: of the run that went on with relational phrases.
    """
    config, module = load_checkpoint(folder / "checkpoints" / "last.ckpt")
    detector, size = module.detector, config.data.size
    names = [category.name for category in categories(config.data.shapes.preset, config.data.shapes.version)]
    lists = {str(count): costs.vocabulary(names, count) for count in costs.VOCABULARIES}
    lengthened = {}
    for form, figures in claims.lengthened(config, module).items():
        longer = tuple(form.format(name) for name in names)
        with torch.no_grad():
            tokens = len(detector.encode_prompts(Prompts(longer)).category)
        decode = costs.latency(detector, longer, size).decode
        lengthened[form] = figures | {"tokens": tokens, "milliseconds": decode}
    found = {
        "threads": torch.get_num_threads(),
        "parameters": costs.num_parameters(detector),
        "latency": {count: costs.latency(detector, some, size)._asdict() for count, some in lists.items()},
        "gflops": {count: costs.gflops(detector, some, size)._asdict() for count, some in lists.items()},
        "lengthened": lengthened,
        "interference": claims.interference(config, module),
        "relations": {
            "names": claims.relations(config, module),
            "phrases": claims.relations(*load_checkpoint(relations / "checkpoints" / "last.ckpt")),
        },
    }
    ap = average_precision(folder)["text"]
    _log(override(config, ["logging.job_type=measures"]), {"test": {"ap": ap}, **found})
    return found


def _log(config: Config, figures: dict[str, Any]) -> None:
    if config.logging.wandb != "disabled":
        logger = wandb_logger(config)
        logger.log_metrics(flat(figures))
        logger.experiment.finish()


def _finished(folder: Path) -> Runs[Cell]:
    """Every cell that was measured, whichever call did it."""
    cells: dict[str, dict[int, Cell]] = {}
    for name in CELLS:
        for seed, path in folders(folder, name).items():
            if (path / "measures.json").exists():
                logged = {key: [value for _, value in points] for key, points in read_history(path).items()}
                cells.setdefault(name, {})[seed] = Cell(
                    ap=average_precision(path),
                    measures=json.loads((path / "measures.json").read_text(encoding="utf-8")),
                    seconds_per_step=median(logged["resources/seconds_per_step"]),
                    memory_gib=max(logged["resources/memory_gib"]),
                )
    return cells
