"""Find in an image what prompts ask for."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.prompt_options import add_prompt_options, marked
from trex2_lightning.commands.terminal import console
from trex2_lightning.inference.prediction_files import output_files, write_prediction
from trex2_lightning.inference.predictor import Predictor, Reference
from trex2_lightning.prompting.prompt_set import join


def main(arguments: list[str], prog: str = "predict.py") -> None:
    """`predict.py IMAGE --ckpt FILE --text PHRASE --box NAME=X1,Y1,X2,Y2 ...`"""
    parser = argparse.ArgumentParser(
        prog,
        description="Find in an image what phrases name, what looks like exemplars, and what a prompt file holds.",
        epilog="The options of what to look for may be repeated. Pixels are those of the image as a viewer shows it. "
        "Exemplars of one NAME make one prompt; a NAME that is a --text too is prompted by both.",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a run")
    add_prompt_options(parser)
    parser.add_argument("--save-prompts", type=Path, metavar="FILE", help="write the prompts to a .safetensors file")
    parser.add_argument(
        "--threshold", type=float, help="lowest score that is kept; default: the checkpoint's for each kind of prompt"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/predict"),
        help="folder for the picture and the JSON, not that of the IMAGE",
    )
    options = parser.parse_args(arguments)
    shown = marked(options)
    output_files(options.image, options.output, (Path(file) for file in shown if file))  # refuses before it computes
    predictor = Predictor.from_checkpoint(options.ckpt)
    image, exemplars = predictor.encode(options.image), shown.pop("", {})
    references: list[Reference] = [(Path(file), others) for file, others in shown.items()]
    if exemplars:
        references.append((image, exemplars))
    made = predictor.mixed(tuple(options.text), references, options.mix)
    prompts = join(made, *(predictor.load(Path(file)) for file in options.prompts))
    detections = predictor.detect(image, prompts, options.threshold, options.negative)
    present = None if predictor.module.detector.presence is None else predictor.present(image, prompts)
    written = [*write_prediction(options.image, detections, options.output, exemplars, present)]
    if options.save_prompts:
        predictor.save(prompts, options.save_prompts)
        written.append(options.save_prompts)
    console.print(f"{len(detections)} detections, written to {', '.join(map(str, written))}", soft_wrap=True)
