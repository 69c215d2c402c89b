"""Runs the documents' commands in this process: as they stand, with tiny sizes appended to what trains."""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

from documents import ROOT, Command

from trex2_lightning.__main__ import main as trex2
from trex2_lightning.config import Config, load
from trex2_lightning.errors import InputError
from trex2_lightning.finetuning.stages import FolderRun
from trex2_lightning.models.hub.settings import model_config

TINY = [
    *("data.size=64", "data.max_size=96", "data.train_sizes=[64]", "data.batch_size=2", "data.num_workers=0"),
    *("data.negatives.count=5", "loss.denoising.queries=10", "optim.warmup_steps=1", "logging.wandb=disabled"),
    *("train.max_steps=2", "train.val_every=2", "train.total_batch=2", "train.accelerator=cpu", "train.devices=1"),
    *("train.nodes=1", "train.precision=32-true"),
]
# One size for all experiments, so that one checkpoint is every run's.
TINY_MODEL = [
    *("model.width=32", "model.num_levels=3", "model.num_queries=20"),
    "model.backbone={name: test_resnet, weights: '', out_indices: [2, 3, 4], frozen: [], frozen_batchnorm: false}",
    "model.text={name: custom, pretrained: '', norm: true, width: 32, layers: 1, heads: 2}",
    "model.transformer={encoder_layers: 1, decoder_layers: 2, heads: 4, ffn: 64, points: 2, shared_box_head: false}",
    "model.visual={layers: 1, ffn: 64}",
]
# What takes hours, GPUs or the network, by script. Of a command that is marked, all is run but this.
WORK = {
    "ablation_full": ("trex2_lightning.studies.full_ablation.compare_full_size",),
    "ablation_fusion": ("trex2_lightning.studies.fusion_ablation.compare_fusion",),
    "ablation_prompts": ("trex2_lightning.studies.prompt_ablation.compare_prompts",),
    "bench": (
        "trex2_lightning.studies.speed.measure_speed",
        "trex2_lightning.studies.crowded_speed.crowded_steps",
    ),
    "bench_gpu": ("trex2_lightning.studies.gpu_speed.measure_gpu",),
    "compare_runs": ("trex2_lightning.evaluation.compare.compare",),
    "demo": ("trex2_lightning.studies.demo.demo",),
    "evaluate": (
        "trex2_lightning.evaluation.evaluate.evaluate",
        "trex2_lightning.evaluation.tasks.evaluate_tasks",
        "trex2_lightning.commands.evaluate._present",
    ),
    "verify_official": (
        "trex2_lightning.studies.official.verify",
        "trex2_lightning.studies.official.verification_table",
    ),
    "wandb_dashboard": ("trex2_lightning.studies.dashboard.save_workspace",),
}


class CommandError(Exception):
    """A command of a document that ends with an error, or that nothing runs and no mark excuses."""


def run(command: Command) -> None:
    """Run a command, or of one that is marked what can be: its target, its options.

    Raises:
        CommandError: it ends with an error; or there is no way to run it, and it is not marked.
    """
    calls = scripts_of(command.words)
    if not calls and command.reason is None:
        raise CommandError(f"{command.place}: nothing runs `{command.line}`: mark its block <!-- not run: REASON -->")
    for script, arguments in calls:
        with ExitStack() as stack:
            stack.enter_context(
                patch("trex2_lightning.training.preflight_report.MOST_WAITING", 1.0)
            )  # on busy machines
            for name in WORK.get(Path(script).stem, ()) if command.reason else ():
                stack.enter_context(patch(name, MagicMock(name=name, return_value=[])))
            try:
                if command.reason is None:
                    call(script, [*arguments, *shrinking(script, arguments)])
                elif Path(script).stem in WORK:
                    call(script, arguments)
            except (SystemExit, InputError) as error:
                if isinstance(error, SystemExit) and not error.code:  # help
                    continue
                raise CommandError(f"{command.place}: `{command.line}` ended with {error!r}") from error


def scripts_of(words: list[str]) -> list[tuple[str, list[str]]]:
    """The project's scripts that a command calls, with their arguments."""
    if words[0] == "make":
        return [call for line in dry(words) for call in scripts_of(shlex.split(line))]
    if words[0] == "trex2":
        return [(words[0], words[1:])]
    if Path(words[0]).name == "python" and words[1:3] == ["-m", "trex2_lightning"]:
        return [("trex2", words[3:])]
    if Path(words[0]).name == "python" and words[1].startswith("scripts/"):
        return [(words[1], words[2:])]
    return []


def dry(words: list[str]) -> list[str]:
    """What `make` would do, but for the installation; a `make test` that this runs under hands nothing down."""
    call = ["make", "--no-print-directory", "-n", "-o", ".venv/.installed", *words[1:]]
    own = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS")}
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, env=own)
    if done.returncode:
        raise CommandError(f"`{shlex.join(words)}`: {done.stderr.strip()}")
    return done.stdout.splitlines()


def call(script: str, arguments: list[str]) -> None:
    """As `python SCRIPT ARGUMENTS` does."""
    with patch("sys.argv", [script, *arguments]):
        if script.endswith(".py"):
            runpy.run_path(script, run_name="__main__")
        else:
            trex2()


def shrinking(script: str, arguments: list[str]) -> list[str]:
    """What a document's call needs on top to take seconds; a new training finds no older one in its folder."""
    name = Path(script).stem
    if script == "trex2":
        name, *arguments = arguments
    if name in ("tune", "tune_prompts"):
        return ["--steps", "2"]
    if name not in ("train", "preflight") or "--help" in arguments:
        return []
    file, *rest = [argument for argument in arguments if not argument.startswith("--")]
    if Path(file).is_dir():
        run = FolderRun(Path(file), 1, rest, str)
        if "--stage=2" in arguments:
            return ["train.max_steps=2"]
        if "--resume" not in arguments:
            shutil.rmtree(run.config_file(1).parent, ignore_errors=True)
        return [*TINY, *TINY_MODEL]
    written = load(file, rest)  # with the document's own values, which have to be right without ours too
    steps = ["--steps=2"] if name == "preflight" else []
    if not steps and "--resume" not in arguments:
        shutil.rmtree(written.folder / "checkpoints", ignore_errors=True)
    return [*steps, *TINY, *(like_hub(written) if written.model.init_from else TINY_MODEL)]


def like_hub(written: Config) -> list[str]:
    """The sizes of `model.init_from`, whatever detector is to start from it; its text encoder where that is a BERT."""
    hub, is_bert = asdict(model_config(written.model.init_from)), written.model.text.name.startswith("bert")
    kept = ("width", "num_levels", "num_queries", "backbone", "transformer", *(("text",) if is_bert else ()))
    sizes = [f"model.{name}={flow(hub[name])}" for name in kept]
    return sizes if is_bert else [*sizes, next(item for item in TINY_MODEL if item.startswith("model.text"))]


def flow(value: Any) -> str:
    """As YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    return str(value) if value != "" else "''"
