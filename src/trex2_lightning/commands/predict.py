"""Find in an image what prompts ask for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from trex2_lightning.commands.terminal import add_model, aside, console
from trex2_lightning.errors import InputError
from trex2_lightning.structures import Box, Exemplar, Point

if TYPE_CHECKING:
    from trex2_lightning.inference.predictor import Detection

OPTION_FORMS = {"--box": "NAME=X1,Y1,X2,Y2", "--point": "NAME=X,Y", "--reference": "NAME=FILE:X1,Y1,X2,Y2"}


def main(arguments: list[str], prog: str = "predict.py") -> None:
    """`predict.py IMAGE --model MODEL --text PHRASE --box NAME=X1,Y1,X2,Y2 ...`"""
    parser = argparse.ArgumentParser(
        prog,
        description="Find in an image what phrases name, what looks like exemplars, and what a prompt file holds.",
        epilog="The options of what to look for may be repeated. Pixels are those of the image as a viewer shows it. "
        "Exemplars of one NAME make one prompt; a NAME that is a --text too is prompted by both.",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE")
    add_model(parser)
    wanted = parser.add_argument_group("what to look for")
    for option, form, meaning in (
        ("--text", "PHRASE", "what the phrase names"),
        ("--box", OPTION_FORMS["--box"], "what looks like the object in this box"),
        ("--point", OPTION_FORMS["--point"], "what looks like the object at this point"),
        ("--reference", OPTION_FORMS["--reference"], "what looks like this box, or point X,Y, of another image"),
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
    parser.add_argument(
        "--threshold", type=float, help="lowest score that is kept; default: the checkpoint's for each kind of prompt"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the picture and the JSON, not that of the IMAGE (default: runs/predict; with --json none)",
    )
    parser.add_argument("--json", action="store_true", help="print what is found as JSON, for pipes")
    options = parser.parse_args(arguments)
    marked = _marked(options)
    folder = options.output or (None if options.json else Path("runs/predict"))

    from trex2_lightning.inference.prediction_files import output_files, prediction_values, write_prediction
    from trex2_lightning.inference.predictor import Predictor, Reference
    from trex2_lightning.prompting.prompt_set import join

    if folder:
        output_files(options.image, folder, (Path(file) for file in marked if file))  # refuses before it computes
    predictor = Predictor.from_pretrained(options.model)
    image, exemplars = predictor.encode(options.image), marked.pop("", {})
    references: list[Reference] = [(Path(file), others) for file, others in marked.items()]
    if exemplars:
        references.append((image, exemplars))
    made = predictor.mixed(tuple(options.text), references, options.mix)
    prompts = join(made, *(predictor.load(Path(file)) for file in options.prompts))
    detections = predictor.detect(image, prompts, options.threshold, options.negative)
    present = None if predictor.module.detector.presence is None else predictor.present(image, prompts)
    written: list[Path] = []
    if folder:
        written += write_prediction(options.image, detections, folder, exemplars, present)
    if options.save_prompts:
        predictor.save(prompts, options.save_prompts)
        written.append(options.save_prompts)
    if options.json:
        values = json.dumps(prediction_values(options.image, detections, present), indent=2)
        console.print(values, soft_wrap=True, highlight=False, markup=False, emoji=False)
    told = f"{len(detections)} detections" + (f", written to {', '.join(map(str, written))}" if written else "")
    (aside if options.json else console).print(told, soft_wrap=True, highlight=False, markup=False)
    if not detections:
        _tell_best(predictor.detect(image, prompts, 0.0, options.negative))


def _tell_best(detections: Sequence[Detection]) -> None:
    """What comes nearest to being found."""
    if detections:
        name, score, _ = detections[0]
        told = f"nothing is above the threshold; the best score is {score:.2g}, of '{name}': --threshold gives another"
        aside.print(told, soft_wrap=True, highlight=False, markup=False)


def _marked(options: argparse.Namespace) -> dict[str, dict[str, list[Exemplar]]]:
    """Exemplars by file, "" for the image itself, and category."""
    marked: dict[str, dict[str, list[Exemplar]]] = {}
    for option, kinds in (("--box", (Box,)), ("--point", (Point,)), ("--reference", (Box, Point))):
        for text in getattr(options, option.removeprefix("--")):
            name, _, place = text.partition("=")
            file, _, numbers = place.rpartition(":")
            try:
                values = [float(number) for number in numbers.split(",")]
            except ValueError:
                values = []
            kind = next((kind for kind in kinds if len(fields(kind)) == len(values)), None)
            if not name.strip() or kind is None or bool(file) != (option == "--reference"):
                raise InputError(f"{option} {text}: write {option} {OPTION_FORMS[option]}, in pixels")
            marked.setdefault(file, {}).setdefault(name.strip(), []).append(kind(*values))
    return marked
