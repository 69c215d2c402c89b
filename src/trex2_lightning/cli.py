"""The command lines behind scripts/: what the user can mend is told in one line, without a traceback."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from trex2_lightning import run
from trex2_lightning.config import load, override
from trex2_lightning.errors import InputError
from trex2_lightning.predict import Predictor, write_prediction

console = Console()


def command(function: Callable[[list[str]], None]) -> None:
    """Run a command with the arguments of this process; wrong input ends it with status 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(show_path=False)])
    logging.getLogger("trex2_lightning").setLevel(logging.INFO)
    try:
        function(sys.argv[1:])
    except InputError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)


def train(arguments: list[str]) -> None:
    """`train.py CONFIG [--resume] key=value ...`"""
    parser = argparse.ArgumentParser("train.py", description="Train a detector.")
    parser.add_argument("config", type=Path, help="experiment file")
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint")
    options, overrides = _parse(parser, arguments)
    config = load(options.config, overrides)
    run.train(config, resume=options.resume)
    console.print(f"written to {config.folder}", soft_wrap=True)


def evaluate(arguments: list[str]) -> None:
    """`evaluate.py --ckpt FILE [--split test] [--output DIR] key=value ...`"""
    parser = argparse.ArgumentParser("evaluate.py", description="COCO AP of a checkpoint, by category group.")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a run")
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--output", type=Path, help="folder for the files; default: the run's folder")
    options, overrides = _parse(parser, arguments)
    trained, module = run.load(options.ckpt)
    config = override(trained, [*_available_device(), *overrides])
    if config.model != trained.model:
        raise InputError("the model of a checkpoint cannot be changed: leave out the overrides of model.*")
    output = options.output or options.ckpt.parent.parent
    output.mkdir(parents=True, exist_ok=True)

    text = run.evaluate(config, module, options.split)
    control = run.evaluate(config, module, options.split, run.permuted(text.records.names, config.seed))
    run.write_results(text, output / "results_text.json")
    rows = {"text": text.figures, "random_phrases": control.figures}
    summary = {
        "checkpoint": str(options.ckpt),
        "split": options.split,
        "ground_truth": str(text.records.annotations),
        "ap": {row: run.by_group(figures) for row, figures in rows.items()},
        "ap50": {row: run.by_group(figures, "ap50") for row, figures in rows.items()},
    }
    (output / "evaluation.json").write_text(json.dumps(summary, indent=2) + "\n")
    console.print(ap_table({"AP": summary["ap"], "AP50": summary["ap50"]}))
    console.print(f"written to {output / 'evaluation.json'} and {output / 'results_text.json'}", soft_wrap=True)


def predict(arguments: list[str]) -> None:
    """`predict.py IMAGE --text PHRASE [--text PHRASE ...] --ckpt FILE`"""
    parser = argparse.ArgumentParser("predict.py", description="Find in an image what phrases name.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--text", action="append", required=True, help="phrase to look for; may be repeated")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a run")
    parser.add_argument("--threshold", type=float, default=0.3, help="lowest score that is kept")
    parser.add_argument("--output", type=Path, default=Path("runs/predict"), help="folder for the picture and the JSON")
    options = parser.parse_args(arguments)
    predictor = Predictor.from_checkpoint(options.ckpt)
    detections = predictor(options.image, tuple(options.text), threshold=options.threshold)
    picture, values = write_prediction(options.image, detections, options.output)
    console.print(f"{len(detections)} detections, written to {picture} and {values}", soft_wrap=True)


def ap_table(blocks: dict[str, dict[str, dict[str, float]]]) -> Table:
    """`{metric: {prompt: {group: value}}}` as a table with a column for every group."""
    groups = list(next(iter(next(iter(blocks.values())).values())))
    table = Table("metric", "prompt", *groups)
    for metric, rows in blocks.items():
        for prompt, values in rows.items():
            table.add_row(metric, prompt, *(f"{values[group]:.3f}" if group in values else "-" for group in groups))
    return table


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options by argparse; what has a `=` and no leading dash is an override."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values")
    options = parser.parse_intermixed_args(arguments)
    return options, options.overrides


def _available_device() -> list[str]:
    accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    return [f"train.accelerator={accelerator}", "train.devices=1", "train.nodes=1"]
