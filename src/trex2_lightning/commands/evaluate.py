"""Figures of a checkpoint, on its own data or on a benchmark."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from trex2_lightning.commands.terminal import add_model, among_ranks, console, if_stopped, parse
from trex2_lightning.errors import InputError
from trex2_lightning.ops.host import writable
from trex2_lightning.prompting.protocol_names import OWN_EXEMPLARS, PROTOCOLS

if TYPE_CHECKING:
    from trex2_lightning.config import Config
    from trex2_lightning.evaluation.report import EvaluationReport


@among_ranks()
def main(arguments: list[str], prog: str = "evaluate.py") -> None:
    """`evaluate.py --model MODEL [BENCHMARK.yaml] [--split test] [--protocol NAME ...] [--output DIR] key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Figures of a checkpoint, on its data or a benchmark.")
    add_model(parser)
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument(
        "--protocol",
        action="append",
        metavar="NAME",
        choices=(*PROTOCOLS, OWN_EXEMPLARS),
        help="what images are asked with; may be repeated; default: those of the benchmark, or text and its "
        f"controls; all after visual training: {', '.join((*PROTOCOLS, OWN_EXEMPLARS))}",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the files; default: the run's folder, or one in eval/ of it; of a checkpoint outside of a run "
        "results/NAME here",
    )
    options, overrides = parse(parser, arguments, "a benchmark of experiments/eval/, and configuration values")

    from lightning.pytorch.utilities import rank_zero_only

    from trex2_lightning.config import for_benchmark, for_evaluation
    from trex2_lightning.evaluation.evaluate import evaluate
    from trex2_lightning.evaluation.tasks import evaluate_tasks
    from trex2_lightning.inference.pretrained import load_pretrained
    from trex2_lightning.training.checkpoint import checkpoint_of

    trained, module = load_pretrained(options.model)
    config, benchmark = trained, ""
    files = [item for item in overrides if item.endswith((".yaml", ".yml")) and "=" not in item]
    if files:
        overrides.remove(files[0])
        file = Path(files[0])
        config, benchmark = for_benchmark(config, file), file.stem
        if not any(item.startswith("data.root=") for item in overrides):
            raise InputError(f"{file} needs the benchmark's folder: add data.root=FOLDER")
    config = for_evaluation(config, [*available_device(), *overrides])
    if config.model != trained.model:
        raise InputError("the model of a checkpoint cannot be changed: leave out the overrides of model.*")
    what = _what(benchmark, options.split, options.protocol or [])
    checkpoint = checkpoint_of(options.model)
    own = _own_folder(checkpoint) if checkpoint else trained.folder
    output = writable(options.output or (own / "eval" / what if what else own))

    if config.eval.tasks:
        kept = f"the tasks that are done are kept in {output}: the same command goes on from there"
        with if_stopped(lambda: kept):
            reports = evaluate_tasks(config, module, options.split, options.protocol, output)
    else:
        reports = {"": evaluate(config, module, options.split, options.protocol)}
    about = {"checkpoint": str(checkpoint or options.model), "split": options.split}
    rank_zero_only(_present)(reports, config, output, about, what)  # all ranks have the same figures


def _own_folder(checkpoint: Path) -> Path:
    """That of its run; of a checkpoint that lies elsewhere, one in the working folder, which no other one has."""
    run = checkpoint.parent.parent
    if (run / "config.yaml").is_file():
        return run
    places = (Path("results", checkpoint.stem + f"_{number}" * (number > 1)) for number in count(1))
    return next(place for place in places if _is_free(place, checkpoint))


def _is_free(folder: Path, checkpoint: Path) -> bool:
    """Whether no other checkpoint was evaluated into it."""
    for file in folder.rglob("evaluation.json"):
        with suppress(OSError, ValueError, KeyError):
            return Path(json.loads(file.read_text(encoding="utf-8"))["checkpoint"]).resolve() == checkpoint.resolve()
    return True


def _what(benchmark: str, split: str, protocols: Sequence[str]) -> str:
    """Nothing for all of the test split of the run's own data, which its folder has; else what was chosen."""
    parts = [benchmark, split if split != "test" else "", *protocols]
    return "-".join(part for part in parts if part)


def _present(
    reports: dict[str, EvaluationReport], config: Config, output: Path, about: dict[str, str], what: str
) -> None:
    """Write, log and print what an evaluation found."""
    from trex2_lightning.evaluation.report import by_task, log_summary, summarize, write_evaluation
    from trex2_lightning.evaluation.tables import ap_table

    summary = summarize(reports) if config.eval.tasks else reports[""].summary()
    write_evaluation(reports, output, about)
    trust = {
        f"{task}/{row}" if task else row: one
        for task, report in reports.items()
        for row, one in report.reliability().items()
    }
    log_summary(config, output, summary, what, trust)
    if config.eval.tasks:
        console.print(ap_table(by_task(reports, "ap"), "task"))
    console.print(ap_table(summary))
    for name, report in reports.items():
        if report.support:
            most = max(report.support)
            told = f"{name} generic_{most}: {report.support[most]}".lstrip()
            console.print(told, soft_wrap=True, markup=False)
        if report.left_out:
            named = ", ".join(report.left_out[:3]) + ", ..." * (len(report.left_out) > 3)
            told = f"{name} without {len(report.left_out)} images that could not be read any more: {named}".lstrip()
            console.print(told, soft_wrap=True, markup=False)
    console.print(f"written to {output}: evaluation.json and results_ROW.json of every row", soft_wrap=True)


def available_device() -> list[str]:
    """Overrides for the one that this machine has."""
    import torch

    accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    return [f"train.accelerator={accelerator}", "train.devices=1", "train.nodes=1"]
