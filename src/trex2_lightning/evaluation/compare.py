"""What two or more runs found, what they cost and in which settings they differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from trex2_lightning.config.migrations import migrate
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.costs import NUM_NAMES, Cost
from trex2_lightning.evaluation.curves import curve
from trex2_lightning.evaluation.history import History, evaluation_of, read_history, read_json
from trex2_lightning.evaluation.tables import flat, table
from trex2_lightning.ops.host import writable
from trex2_lightning.training.provenance import UNKNOWN, Provenance, read_provenance, told

WANDB_ID = re.compile(r"[\w.-]+/[\w.-]+/\w+")  # entity/project/id
UNLIKE = ("name", "output", "format")  # in which runs differ anyway, or which is no setting
# Of all figures of an evaluation, those that runs are compared by.
COMPARED = {
    "ap": "AP",
    "fixed_ap": "Fixed AP",
    "mae": "Mean absolute error of counts",
    "top1": "Region classification, share of names right",
}
# `METRIC/ROW/GROUP` as an evaluation logs it at W&B; before it what was evaluated, if not the run's own test split.
LOGGED_FIGURE = re.compile(rf"(?:([^/]+)/)?({'|'.join(COMPARED)})/([^/]+)/([^/]+)")
RESOURCES = {"resources/seconds_per_step": "seconds a step", "resources/memory_gib": "GiB"}


class RunFacts(NamedTuple):
    """What is known of a run."""

    settings: dict[str, Any]  # by dotted key
    figures: dict[str, dict[str, dict[str, float]]]  # of `COMPARED`, by what images were asked with, and category group
    history: History
    latency: dict[str, float]  # milliseconds by step, as `costs.Cost`; empty where it was not measured
    provenance: Provenance


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
    writable(output)
    figures = [figure_block(found, metric) for metric in COMPARED]
    others = [cost_block(found), origin_block(found), settings_block(found)]
    blocks = [block for block in (*figures, *others) if block.lines]
    text = "\n\n".join(f"## {block.title}\n\n{table(block.head, block.lines)}" for block in blocks)
    (output / "comparison.md").write_text(f"# Comparison of runs\n\n{text}\n", encoding="utf-8")
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


def figure_block(runs: Mapping[str, RunFacts], metric: str) -> Block:
    """A figure, such as AP from 0 to 1, by run, prompt and category group; no lines where no run has it."""
    rows = [(name, asked, row) for name, one in runs.items() for asked, row in one.figures.get(metric, {}).items()]
    groups = list(dict.fromkeys(group for _, _, row in rows for group in row))
    lines = [[name, asked, *(f"{row[g]:.3f}" if g in row else "" for g in groups)] for name, asked, row in rows]
    return Block(COMPARED[metric], ["run", "prompt", *groups], lines)


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


def origin_block(runs: Mapping[str, RunFacts]) -> Block:
    """A line for each run, and one more for each that its weights went through before."""
    lines = [[name, *told(entry).values()] for name, one in runs.items() for entry in one.provenance]
    return Block("Where they come from", ["run", *told(UNKNOWN)], lines)


def _of_folder(folder: Path) -> RunFacts:
    config, measures = folder / "config.yaml", folder / "measures.json"
    if not config.is_file():
        raise InputError(f"{folder} is no run, it has no config.yaml: name a folder that trex2 train has written")
    settings, history = OmegaConf.to_container(OmegaConf.load(config)), read_history(folder)
    found, logged = evaluation_of(folder), {name: points[-1][1] for name, points in history.items()}
    flat_settings = _settings(settings, config)
    asked = _chosen_by(flat_settings)
    figures = {metric: found.get(metric, {}) | _of_split(logged, "val", metric, asked) for metric in COMPARED}
    latency = read_json(measures)["latency"][NUM_NAMES] if measures.is_file() else {}
    return RunFacts(flat_settings, figures, history, latency, read_provenance(folder))


def _of_wandb(name: str) -> RunFacts:
    """Of a run of training, and of its evaluations, which are runs of their own with its name; or of one of these."""
    import wandb  # only where a run lies there

    try:
        api = wandb.Api()
        run = api.run(name)
        values, summary = dict(run.config), dict(run.summary)
        rows = list(run.scan_history())
        own = {"group": run.group, "displayName": run.name, "jobType": "evaluation"}
        evaluations = [dict(one.summary) for one in api.runs(name.rsplit("/", 1)[0], filters=own, lazy=False)]
    except (wandb.Error, ValueError) as error:
        raise InputError(
            f"there is no folder {name}, and W&B gives no such run ({str(error).splitlines()[0]}): name a run folder, "
            "or log in by `wandb login` and upload the run by `wandb sync`"
        ) from error
    settings = _settings(values, name)
    history: History = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, int | float) and row.get("trainer/global_step") is not None:
                history.setdefault(key, []).append((int(row["trainer/global_step"]), float(value)))
    figures: dict[str, dict[str, dict[str, float]]] = {metric: {} for metric in COMPARED}
    for evaluation in [*evaluations, summary]:  # the last one of several
        for key, value in evaluation.items():
            if (match := LOGGED_FIGURE.fullmatch(key)) and not match[1]:
                figures[match[2]].setdefault(match[3], {})[match[4]] = float(value)
    for split in ("test", "val"):
        for metric, found in figures.items():
            found |= _of_split(summary, split, metric, _chosen_by(settings) if split == "val" else "text")
    if not any(figures.values()):
        raise InputError(
            f"the W&B run {name} was never evaluated: it has no val/ap, and no run of its name has a figure such as "
            "ap/text/all"
        )
    keys = {step: f"latency/{NUM_NAMES}/{step}" for step in Cost._fields}
    latency = {step: float(summary[key]) for step, key in keys.items() if key in summary}
    return RunFacts(settings, figures, history, latency, [UNKNOWN])


def _chosen_by(settings: Mapping[str, Any]) -> str:
    """What `val/ap` is asked with: the first of `train.best_by` that the run trains."""
    visual, points = settings.get("train.rhythm.visual"), settings.get("data.exemplars.points")
    of_sets = any(key.startswith("data.sets.") for key in settings)
    trained = {
        "text": settings.get("train.rhythm.text"),
        "interactive_box": visual and points != 1,
        "interactive_point": visual and points != 0,
        "generic": visual and (settings.get("data.reference.annotations") or not of_sets),
    }
    return next((one for one in settings.get("train.best_by", ()) if trained[one]), "text")


def _of_split(logged: Mapping[str, Any], split: str, metric: str, asked: str) -> dict[str, dict[str, float]]:
    """A row of what was logged of a split last, if anything was, and what its images were asked with."""
    whole, groups = f"{split}/{metric}", f"{split}/{metric}/"
    row = {"all": logged[whole]} if whole in logged else {}
    row |= {
        name.removeprefix(groups): value
        for name, value in logged.items()
        if name.startswith(groups) and name.count("/") == 2
    }
    return {f"{asked}, {split} split": {group: float(value) for group, value in row.items()}} if row else {}


def _curve(history: History) -> Sequence[tuple[int, float]]:
    """AP on seen categories where the data set has these, else of all."""
    return history.get("val/ap/seen") or history.get("val/ap", [])


def _settings(values: Any, source: str | Path) -> dict[str, Any]:
    """By dotted key, those of a run of an earlier format in today's."""
    migrate({"config": values}, source)
    return flat(values, ".")
