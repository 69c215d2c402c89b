"""What two or more runs found, what they cost and in which settings they differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import wandb
from omegaconf import OmegaConf

from trex2_lightning.config.migrations import migrate
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.costs import NUM_NAMES, Cost
from trex2_lightning.evaluation.curves import curve
from trex2_lightning.evaluation.history import History, average_precision, read_history, read_json
from trex2_lightning.evaluation.tables import flat, table

WANDB_ID = re.compile(r"[\w.-]+/[\w.-]+/\w+")  # entity/project/id
UNLIKE = ("name", "output", "format")  # in which runs differ anyway, or which is no setting
RESOURCES = {"resources/seconds_per_step": "seconds a step", "resources/memory_gib": "GiB"}


class RunFacts(NamedTuple):
    """What is known of a run."""

    settings: dict[str, Any]  # by dotted key
    ap: dict[str, dict[str, float]]  # by what images were asked with, and category group
    history: History
    latency: dict[str, float]  # milliseconds by step, as `costs.Cost`; empty where it was not measured


class Block(NamedTuple):
    """One table."""

    title: str
    head: list[str]
    lines: list[list[str]]


def compare(names: Sequence[str], output: Path) -> list[Block]:
    """The tables of the runs, written to `output` as `comparison.md`, and their curves as `ap.png`.

    Args:
        names: folders of evaluated runs, or entity/project/id of runs at W&B.
        output: folder; made where it does not exist.

    Raises:
        InputError: fewer than two different runs, or one of them as in `facts`.
    """
    names = [name.rstrip("/") for name in names]
    if len(set(names)) < max(len(names), 2):
        raise InputError("name two or more different runs to compare")
    found = {name: facts(name) for name in names}
    output.mkdir(parents=True, exist_ok=True)
    blocks = [block for block in (ap_block(found), cost_block(found), settings_block(found)) if block.lines]
    text = "\n\n".join(f"## {block.title}\n\n{table(block.head, block.lines)}" for block in blocks)
    (output / "comparison.md").write_text(f"# Comparison of runs\n\n{text}\n")
    curve({name: _curve(one.history) for name, one in found.items()}, output / "ap.png", "AP on val")
    return blocks


def facts(name: str) -> RunFacts:
    """What is known of a run folder or a W&B run.

    Raises:
        InputError: it is neither, or was never evaluated on its test split.
    """
    if Path(name).is_dir():
        return _of_folder(Path(name))
    if WANDB_ID.fullmatch(name):
        return _of_wandb(name)
    raise InputError(f"there is no folder {name}: name the folder of a run, or entity/project/id of one at W&B")


def ap_block(runs: Mapping[str, RunFacts]) -> Block:
    """AP from 0 to 1 by run, prompt and category group."""
    groups = list(dict.fromkeys(group for one in runs.values() for row in one.ap.values() for group in row))
    lines = [
        [name, asked, *(f"{row[group]:.3f}" if group in row else "" for group in groups)]
        for name, one in runs.items()
        for asked, row in one.ap.items()
    ]
    return Block("AP", ["run", "prompt", *groups], lines)


def cost_block(runs: Mapping[str, RunFacts]) -> Block:
    """Median seconds a step, most GiB, and milliseconds of the three steps of inference."""
    lines = []
    for name, one in runs.items():
        logged = [[value for _, value in one.history.get(key, [])] for key in RESOURCES]
        resources = [f"{median(values):.3f}" if values else "" for values in logged[:1]]
        resources += [f"{max(values):.2f}" if values else "" for values in logged[1:]]
        latency = [f"{one.latency[step]:.1f}" if one.latency else "" for step in Cost._fields]
        lines.append([name, *resources, *latency])
    head = ["run", *RESOURCES.values(), *(f"{step}, ms" for step in Cost._fields)]
    return Block(f"Cost, of inference for {NUM_NAMES} names", head, lines)


def settings_block(runs: Mapping[str, RunFacts]) -> Block:
    """A line for each setting that is not the same in all runs."""
    keys = dict.fromkeys(key for one in runs.values() for key in one.settings if key not in UNLIKE)
    values = {key: [str(one.settings.get(key, "")) for one in runs.values()] for key in keys}
    lines = [[key, *row] for key, row in values.items() if len(set(row)) > 1]
    return Block("Settings that differ", ["setting", *runs], lines)


def _of_folder(folder: Path) -> RunFacts:
    config, measures = folder / "config.yaml", folder / "measures.json"
    if not config.is_file():
        raise InputError(f"{folder} is no run, it has no config.yaml: name a folder that scripts/train.py has written")
    settings, history = OmegaConf.to_container(OmegaConf.load(config)), read_history(folder)
    ap = average_precision(folder) | _ap({name: points[-1][1] for name, points in history.items()}, "val")
    latency = read_json(measures)["latency"][NUM_NAMES] if measures.is_file() else {}
    return RunFacts(_settings(settings, config), ap, history, latency)


def _of_wandb(name: str) -> RunFacts:
    try:
        run = wandb.Api().run(name)
        settings, summary = _settings(dict(run.config), name), dict(run.summary)
        rows = list(run.scan_history())
    except (wandb.Error, ValueError) as error:
        raise InputError(
            f"there is no folder {name}, and W&B gives no such run ({str(error).splitlines()[0]}): name a run folder, "
            "or log in by `wandb login` and upload the run by `wandb sync`"
        ) from error
    history: History = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, int | float) and row.get("trainer/global_step") is not None:
                history.setdefault(key, []).append((int(row["trainer/global_step"]), float(value)))
    ap = _ap(summary, "test") | _ap(summary, "val")
    if not ap:
        raise InputError(f"the W&B run {name} was never evaluated: it has neither val/ap nor test/ap")
    keys = {step: f"latency/{NUM_NAMES}/{step}" for step in Cost._fields}
    latency = {step: float(summary[key]) for step, key in keys.items() if key in summary}
    return RunFacts(settings, ap, history, latency)


def _ap(figures: Mapping[str, Any], split: str) -> dict[str, dict[str, float]]:
    """A row of AP of what was logged for a split last, if anything was."""
    prefix = f"{split}/ap"
    groups = {
        name.removeprefix(f"{prefix}/"): value for name, value in figures.items() if name.startswith(f"{prefix}/")
    }
    whole = {"all": figures[prefix]} if prefix in figures else {}
    row = {group: float(value) for group, value in (whole | groups).items()}
    return {f"text, {split} split": row} if row else {}


def _curve(history: History) -> Sequence[tuple[int, float]]:
    """AP on seen categories where the data set has these, else of all."""
    return history.get("val/ap/seen") or history.get("val/ap", [])


def _settings(values: Any, source: str | Path) -> dict[str, Any]:
    """By dotted key, those of a run of an earlier format in today's."""
    migrate({"config": values}, source)
    return flat(values, ".")
