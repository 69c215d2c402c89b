"""Find in an image what prompts ask for."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trex2_lightning.commands.prompt_options import add_prompt_options, add_refine_options, marked, refining
from trex2_lightning.commands.terminal import add_model, aside, console
from trex2_lightning.ops.host import writable


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
    add_prompt_options(parser)
    add_refine_options(parser, "IMAGE")
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
    shown = marked(options)
    folder = options.output or (None if options.json else Path("runs/predict"))

    from trex2_lightning.inference.inputs import as_picture
    from trex2_lightning.inference.prediction_files import output_files, prediction_values, write_prediction
    from trex2_lightning.inference.predictor import Predictor, Reference
    from trex2_lightning.inference.refining import refine
    from trex2_lightning.prompting.prompt_file import prompt_file
    from trex2_lightning.prompting.prompt_set import join

    if folder:  # refuses before it computes
        output_files(options.image, folder, (Path(file) for file in shown if file))
        writable(folder)
    if options.save_prompts:
        writable(prompt_file(options.save_prompts).parent, "--save-prompts")
    picture = as_picture(options.image)  # refused before a detector is loaded
    predictor = Predictor.from_pretrained(options.model)
    image, exemplars = predictor.encode(picture), shown.pop("", {})
    references: list[Reference] = [(Path(file), others) for file, others in shown.items()]
    if exemplars:
        references.append((image, exemplars))
    which = refining(options)
    if which:
        made = refine(predictor, tuple(options.text), [image], references, options.mix, which)
    else:
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
