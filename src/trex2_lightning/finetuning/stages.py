"""Both stages on a folder of annotated pictures: look, choose, write that down, train, and show what came of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from trex2_lightning.config import Config, load, override, save, to_dict
from trex2_lightning.config.files import SHIPPED
from trex2_lightning.errors import InputError
from trex2_lightning.evaluation.after_training import fit_scores
from trex2_lightning.evaluation.evaluate import evaluate
from trex2_lightning.evaluation.report import log_summary, write_evaluation
from trex2_lightning.evaluation.tables import ap_table, console, flat, table
from trex2_lightning.finetuning.choices import Choice, choose
from trex2_lightning.finetuning.machine import this_machine
from trex2_lightning.finetuning.survey import prepare_folder, survey
from trex2_lightning.inference.sheets import write_text_sheet
from trex2_lightning.ops.host import writable
from trex2_lightning.training.checkpoint import load_checkpoint
from trex2_lightning.training.fit import require_new, train

BASE, BASE_STAGE_2 = SHIPPED / "photographs.yaml", SHIPPED / "photographs_stage2.yaml"
OWN_OF_A_RUN = ("format", "name", "train.init_from", "train.max_steps", "train.val_every")  # not of the recipe
CHOICES, SHEET = "choices.md", "detections.png"
BY_WORDS = ("text", "random_phrases", "foreign_phrases")  # with its controls
BY_EXAMPLE = ("hinted_text", "interactive_box", "wrong_pictures", "generic", "random_references")


class FolderRun(NamedTuple):
    """What somebody asks for."""

    folder: Path  # of the data set
    stage: int  # 1: words, 2: exemplars too, from the weights of 1
    overrides: Sequence[str]  # `key=value`
    command: Callable[[str], str]  # how a script is called, by its name

    @property
    def given(self) -> dict[str, str]:
        return dict(item.split("=", 1) for item in self.overrides if "=" in item)

    @property
    def settings(self) -> list[str]:
        """Of the configuration, but for its place and for what is looked for."""
        return [item for item in self.overrides if not item.startswith(("data.format=", "name=", "output="))]

    def config_file(self, stage: int) -> Path:
        """`config.yaml` of a stage, in `OUTPUT/NAME`; stage 2 has `_stage2` behind the name."""
        name = self.given.get("name") or re.sub(r"\W+", "_", self.folder.resolve().name) or "folder"
        return Path(self.given.get("output") or "runs") / (f"{name}_stage2" if stage == 2 else name) / "config.yaml"

    def again(self, *options: str) -> str:
        """The command of another stage, or of the same one."""
        own = [item for item in self.overrides if item.startswith(("name=", "output="))]
        return f"{self.command('train')} {shlex.join([str(self.folder), *options, *own])}"


def resumed(run: FolderRun) -> Config:
    """The configuration of the run that goes on.

    Raises:
        InputError: there is none.
    """
    file = run.config_file(run.stage)
    if not file.is_file():
        raise InputError(f"there is nothing to resume in {file.parent}: leave out --resume to start the run")
    return load(file, run.settings)


def look(run: FolderRun) -> Config:
    """The whole configuration of the run, which is written to its folder with the reasons, and told.

    Raises:
        InputError: the folder has no data set, or the run's folder a run; or stage 2 has no stage 1 to start from.
    """
    if run.given.get("train.devices", "1") != "1" or run.given.get("train.nodes", "1") != "1":
        raise InputError(
            f"a folder is trained in one process: write its settings by {run.again('--look')}, and give "
            f"{run.config_file(run.stage)} to {run.command('train')} with train.devices="
        )
    require_new(run.config_file(run.stage).parent)
    writable(run.config_file(run.stage).parents[1], "output=")
    config, choices = _first_stage(run) if run.stage == 1 else _second_stage(run)
    config.folder.mkdir(parents=True, exist_ok=True)
    save(config, config.folder / "config.yaml")
    rows = [[f"`{choice.key}`", choice.value, choice.why] for choice in choices]
    (config.folder / CHOICES).write_text(table(["setting", "value", "why"], rows) + "\n", encoding="utf-8")
    for choice in choices:
        tell(f"  {choice.key}={choice.value}: {choice.why}")
    base = BASE.name if run.stage == 1 else f"{run.config_file(1)}, stage 1's"
    tell(f"all other settings are those of {base}; key=value changes any: {config.folder / 'config.yaml'} has all")
    return config


def train_and_show(run: FolderRun, config: Config, *, resume: bool) -> None:
    """Train, evaluate the best weights, and write `detections.png` and `evaluation.json`; end with what to do next.

    Raises:
        InputError: as `train`.
    """
    train(config, resume=resume)
    fit_scores(config)
    best = config.folder / "checkpoints" / "best.ckpt"
    config, module = load_checkpoint(best)
    report = evaluate(config, module, "test", (*BY_WORDS, *BY_EXAMPLE) if module.knows_exemplars else BY_WORDS)
    write_evaluation({"": report}, config.folder, {"checkpoint": str(best), "split": "test"})
    log_summary(config, config.folder, report.summary())
    write_text_sheet(report, config.folder / SHEET)
    console.print(ap_table(report.summary()))
    tell("random_phrases and foreign_phrases are controls of text: a name must not be found by another's, so near 0")
    if module.knows_exemplars:
        tell("wrong_pictures is that of interactive_box, which is told what a picture has, as is hinted_text")
        tell("random_references is that of generic prompts: a category must not be found by another's references")
    if config.data.test == config.data.val:
        tell("these figures are of val, by which best.ckpt was chosen: a test split would tell more")
    name = shlex.quote(report.records.names[0])
    tell(f"pictures, true boxes beside as many found: {config.folder / SHEET}")
    tell("next:")
    tell(f"  {run.command('predict')} IMAGE --ckpt {best} --text {name}")
    if run.stage == 1:
        tell(f"  {run.again('--stage', '2')}")
        tell("      trains it to find by example")
    if module.knows_exemplars:
        tell(f"  {run.command('predict')} IMAGE --ckpt {best} --reference {name}=OTHER_IMAGE:X1,Y1,X2,Y2")


def tell(line: str) -> None:
    """As it is, whatever brackets it has, and unbroken."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _first_stage(run: FolderRun) -> tuple[Config, list[Choice]]:
    given = run.given
    place = run.config_file(1).parent
    prepared = prepare_folder(run.folder, place / "data", given.get("data.format", ""))
    for line in prepared.lines:
        tell(line)
    machine = this_machine(given.get("train.accelerator", ""))
    choices = choose(survey(prepared.splits["train"]), machine, given)
    places = {name: str(index.folder.resolve()) for name, index in prepared.splits.items()}
    if "test" not in places:
        choices.append(Choice("data.test.annotations", places["val"], "there is no test split: val stands for it"))
    splits = [f"data.{name}.annotations={folder}" for name, folder in places.items()]
    splits += [f"data.{name}.images=" for name in {*places, "test"}]  # an index knows them
    chosen = [f"{choice.key}={choice.value}" for choice in choices]
    own = [f"name={place.name}", f"output={place.parent}"]
    return load(BASE, [*own, *splits, *chosen, *run.settings]), choices


def _second_stage(run: FolderRun) -> tuple[Config, list[Choice]]:
    """Stage 1's configuration, with what `photographs_stage2.yaml` has otherwise than `photographs.yaml`."""
    before = run.config_file(1)
    best = before.parent / "checkpoints" / "best.ckpt"
    if not before.is_file() or not best.is_file():
        raise InputError(f"{before.parent} has no stage 1 to start from: run {run.again()} first")
    first, recipe, recipe_1 = load(before), load(BASE_STAGE_2), load(BASE)
    ours, theirs = flat(to_dict(recipe), "."), flat(to_dict(recipe_1), ".")
    differ = {key: value for key, value in ours.items() if theirs[key] != value and key not in OWN_OF_A_RUN}
    steps = max(100, round(first.train.max_steps * recipe.train.max_steps / recipe_1.train.max_steps))
    name = run.config_file(2).parent.name
    choices = [
        *(Choice(key, str(value), f"as {BASE_STAGE_2.name} has it") for key, value in differ.items()),
        Choice("train.max_steps", str(steps), f"stage 1 had {first.train.max_steps:,}; the same share as there"),
        Choice("train.val_every", str(steps), "one evaluation"),
        Choice("train.init_from", str(best), "the best weights of this folder's stage 1"),
    ]
    choices = [choice for choice in choices if choice.key not in run.given]
    chosen = [f"{choice.key}={choice.value}" for choice in choices]
    return override(first, [*chosen, *run.settings, f"name={name}"]), choices
