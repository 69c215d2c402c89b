"""The command lines behind scripts/: what the user can mend is told in one line, without a traceback."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from trex2_lightning import benchmarks, run
from trex2_lightning.config import Config, for_benchmark, for_evaluation, load
from trex2_lightning.data.mixture import open_records
from trex2_lightning.errors import InputError
from trex2_lightning.predict import Predictor, Reference, output_files, write_prediction
from trex2_lightning.prompt_set import join
from trex2_lightning.protocols import OWN_EXEMPLARS, PROTOCOLS
from trex2_lightning.run import Report
from trex2_lightning.tuning import exemplars, tune

FORMS = {"--box": "NAME=X1,Y1,X2,Y2", "--point": "NAME=X,Y", "--reference": "NAME=FILE:X1,Y1,X2,Y2"}
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
    """`evaluate.py --ckpt FILE [BENCHMARK.yaml] [--split test] [--protocol NAME ...] [--output DIR] key=value ...`"""
    parser = argparse.ArgumentParser("evaluate.py", description="Figures of a checkpoint, on its data or a benchmark.")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a run")
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument(
        "--protocol",
        action="append",
        choices=(*PROTOCOLS, OWN_EXEMPLARS),
        help="what images are asked with; may be repeated; default: those of the benchmark, or text and "
        "random_phrases; all after visual training",
    )
    parser.add_argument(
        "--output", type=Path, help="folder for the files; default: the run's folder, or one in eval/ of it"
    )
    options, overrides = _parse(parser, arguments, "a benchmark of experiments/eval/, and configuration values")
    trained, module = run.load(options.ckpt)
    config, benchmark = trained, ""
    if overrides and overrides[0].endswith((".yaml", ".yml")) and "=" not in overrides[0]:
        file = Path(overrides.pop(0))
        config, benchmark = for_benchmark(config, file), file.stem
        if not any(item.startswith("data.root=") for item in overrides):
            raise InputError(f"{file} needs the benchmark's folder: add data.root=FOLDER")
    config = for_evaluation(config, [*_available_device(), *overrides])
    if config.model != trained.model:
        raise InputError("the model of a checkpoint cannot be changed: leave out the overrides of model.*")
    output = options.output or _evaluation_folder(options.ckpt, benchmark, options.split, options.protocol or [])
    output.mkdir(parents=True, exist_ok=True)

    if config.eval.tasks:
        reports = benchmarks.evaluate_tasks(config, module, options.split, options.protocol)
    else:
        reports = {"": run.evaluate(config, module, options.split, options.protocol)}
    _present(reports, config, output, {"checkpoint": str(options.ckpt), "split": options.split})


def predict(arguments: list[str]) -> None:
    """`predict.py IMAGE --ckpt FILE --text PHRASE --box NAME=X1,Y1,X2,Y2 ...`"""
    parser = argparse.ArgumentParser(
        "predict.py",
        description="Find in an image what phrases name, what looks like exemplars, and what a prompt file holds.",
        epilog="The options of what to look for may be repeated. Pixels are those of the image as a viewer shows it. "
        "Exemplars of one NAME make one prompt; a NAME that is a --text too is prompted by both.",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a run")
    wanted = parser.add_argument_group("what to look for")
    for option, form, meaning in (
        ("--text", "PHRASE", "what the phrase names"),
        ("--box", FORMS["--box"], "what looks like the object in this box"),
        ("--point", FORMS["--point"], "what looks like the object at this point"),
        ("--reference", FORMS["--reference"], "what looks like this box, or point X,Y, of another image"),
        ("--prompts", "FILE", "what the categories of a prompt file stand for"),
        ("--negative", "NAME", "one of the categories above, whose objects are not wanted"),
    ):
        wanted.add_argument(option, action="append", default=[], metavar=form, help=meaning)
    wanted.add_argument(
        "--mix",
        choices=["half", "mean"],
        default="half",
        help="weight of a phrase beside n images of one NAME: 1/2 (default) or 1/(n+1)",
    )
    parser.add_argument("--save-prompts", type=Path, metavar="FILE", help="write the prompts to a .safetensors file")
    parser.add_argument("--threshold", type=float, default=0.3, help="lowest score that is kept (default: 0.3)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/predict"),
        help="folder for the picture and the JSON, not that of the IMAGE",
    )
    options = parser.parse_args(arguments)
    marked = _marked(options)
    output_files(options.image, options.output, (Path(file) for file in marked if file))  # refuses before it computes
    predictor = Predictor.from_checkpoint(options.ckpt)
    image, exemplars = predictor.encode(options.image), marked.pop("", {})
    references: list[Reference] = [(Path(file), others) for file, others in marked.items()]
    if exemplars:
        references.append((image, exemplars))
    made = predictor.mixed(tuple(options.text), references, options.mix)
    prompts = join(made, *(predictor.load(Path(file)) for file in options.prompts))
    detections = predictor.detect(image, prompts, options.threshold, options.negative)
    written = [*write_prediction(options.image, detections, options.output, exemplars)]
    if options.save_prompts:
        predictor.save(prompts, options.save_prompts)
        written.append(options.save_prompts)
    console.print(f"{len(detections)} detections, written to {', '.join(map(str, written))}", soft_wrap=True)


def tune_prompts(arguments: list[str]) -> None:
    """`tune_prompts.py --ckpt FILE --data FILE [--images DIR] --category NAME ... --output FILE`"""
    parser = argparse.ArgumentParser(
        "tune_prompts.py",
        description="Fit the prompts of categories to a few annotated images; the detector stays as it is. "
        "Whether they find more is for other images to tell.",
    )
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a run")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="annotations of tens of images: a COCO JSON file, or an index that prepare_data.py has made of any format",
    )
    parser.add_argument("--images", type=Path, help="folder of the images of a JSON file; an index knows its own")
    parser.add_argument(
        "--category", action="append", required=True, metavar="NAME", help="of the annotations; may be repeated"
    )
    parser.add_argument(
        "--start",
        choices=["visual", "text"],
        default="visual",
        help="from the annotated boxes (default), or from the names, which a checkpoint of stage 1 needs",
    )
    parser.add_argument("--steps", type=int, default=100, help="each over all images (default: 100)")
    parser.add_argument("--lr", type=float, default=0.03, help="learning rate of Adam (default: 0.03)")
    parser.add_argument("--output", type=Path, required=True, help="prompt file to write, for predict.py --prompts")
    options = parser.parse_args(arguments)
    if options.data.suffix == ".json" and options.images is None:
        raise InputError(f"{options.data} does not say where its images are: add --images FOLDER")
    predictor = Predictor.from_checkpoint(options.ckpt)
    records = open_records(options.data, options.images or Path())
    names, visual = tuple(options.category), options.start == "visual"
    if visual and not predictor.module.visual_trained:
        raise InputError(
            "this checkpoint was trained with text alone, so its boxes mean nothing to begin with: add --start text, "
            "or take one of stage 2"
        )
    start = predictor.generic(exemplars(records, names)) if visual else predictor.text(names)
    tuned = tune(predictor, records, start, options.steps, options.lr)
    predictor.save(tuned.prompts, options.output)
    console.print(
        f"loss on {len(records.images)} images: {tuned.loss_before:.4f} before, {tuned.loss_after:.4f} after "
        f"{options.steps} steps; written to {options.output}",
        soft_wrap=True,
    )


def ap_table(blocks: dict[str, dict[str, dict[str, float]]], row: str = "prompt") -> Table:
    """`{metric: {row: {group: value}}}` as a table with a column for every group."""
    groups = list(dict.fromkeys(group for rows in blocks.values() for values in rows.values() for group in values))
    table = Table("metric", row, *groups)
    for metric, rows in blocks.items():
        for name, values in rows.items():
            table.add_row(metric, name, *(f"{values[group]:.3f}" if group in values else "-" for group in groups))
    return table


def _evaluation_folder(checkpoint: Path, benchmark: str, split: str, protocols: Sequence[str]) -> Path:
    """The run's folder has all of its test split; what was chosen otherwise has a folder that is called after it."""
    parts = [benchmark, split if split != "test" else "", *protocols]
    name = "-".join(part for part in parts if part)
    run_folder = checkpoint.parent.parent
    return run_folder / "eval" / name if name else run_folder


@rank_zero_only  # all ranks have the same figures
def _present(reports: dict[str, Report], config: Config, output: Path, about: dict[str, str]) -> None:
    """Write, log and print what an evaluation found."""
    summary = benchmarks.summarize(reports) if config.eval.tasks else reports[""].summary()
    benchmarks.write(reports, output, about)
    benchmarks.log_summary(config, output, summary)
    if config.eval.tasks:
        console.print(ap_table(benchmarks.by_task(reports, "ap"), "task"))
    console.print(ap_table(summary))
    console.print(f"written to {output}: evaluation.json and results_ROW.json of every row", soft_wrap=True)


def _marked(options: argparse.Namespace) -> dict[str, dict[str, list[list[float]]]]:
    """Exemplars in pixels by file, "" for the image itself, and category."""
    marked: dict[str, dict[str, list[list[float]]]] = {}
    for option, lengths in (("--box", (4,)), ("--point", (2,)), ("--reference", (4, 2))):
        for text in getattr(options, option.removeprefix("--")):
            name, _, place = text.partition("=")
            file, _, numbers = place.rpartition(":")
            try:
                exemplar = [float(number) for number in numbers.split(",")]
            except ValueError:
                exemplar = []
            if not name.strip() or len(exemplar) not in lengths or bool(file) != (option == "--reference"):
                raise InputError(f"{option} {text}: write {option} {FORMS[option]}, in pixels")
            marked.setdefault(file, {}).setdefault(name.strip(), []).append(exemplar)
    return marked


def _parse(
    parser: argparse.ArgumentParser, arguments: list[str], others: str = "configuration values"
) -> tuple[argparse.Namespace, list[str]]:
    """Options by argparse; what has a `=` and no leading dash is an override."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=others)
    options = parser.parse_intermixed_args(arguments)
    return options, options.overrides


def _available_device() -> list[str]:
    accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    return [f"train.accelerator={accelerator}", "train.devices=1", "train.nodes=1"]
