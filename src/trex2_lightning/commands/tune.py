"""Fit prompts to a few annotated images."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import add_model, console, shown_progress
from trex2_lightning.data.formats import every_format
from trex2_lightning.errors import InputError
from trex2_lightning.ops.host import writable


def main(arguments: list[str], prog: str = "tune_prompts.py") -> None:
    """`tune_prompts.py --ckpt FILE --data FILE [--format NAME] [--images DIR] --category NAME ... --output FILE`"""
    parser = argparse.ArgumentParser(
        prog,
        description="Fit the prompts of categories to a few annotated images; the detector stays as it is. "
        "Whether they find more is for other images to tell.",
    )
    add_model(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="annotations of tens of images: a file of --format, or an index that `trex2 prepare` has made of any",
    )
    direct = [name for name, form in every_format().items() if form.direct]
    meaning = f"of the file: {', '.join(direct)} (default: coco)"
    parser.add_argument("--format", choices=direct, default="coco", metavar="NAME", help=meaning)
    parser.add_argument("--images", type=Path, help="folder of the images of a file; an index knows its own")
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
    parser.add_argument("--output", type=Path, required=True, help="prompt file to write, for predict --prompts")
    options = parser.parse_args(arguments)

    from trex2_lightning.data.opening import open_records
    from trex2_lightning.inference.predictor import Predictor
    from trex2_lightning.inference.tuning import exemplars, tune
    from trex2_lightning.prompting.prompt_file import prompt_file

    writable(prompt_file(options.output).parent)
    form = every_format()[options.format]
    if form.is_direct(options.data) and options.images is None:
        raise InputError(f"{options.data} does not say where its images are: add --images FOLDER")
    predictor = Predictor.from_pretrained(options.model)
    records = open_records(options.data, options.images or Path(), form)
    names, visual = tuple(options.category), options.start == "visual"
    if visual and not predictor.module.visual_trained:
        raise InputError(
            "this checkpoint was trained with text alone, so its boxes mean nothing to begin with: add --start text, "
            "or take one of stage 2"
        )
    start = predictor.generic(exemplars(records, names)) if visual else predictor.text(names)
    with shown_progress("steps") as progress:
        tuned = tune(predictor, records, start, options.steps, options.lr, progress)
    predictor.save(tuned.prompts, options.output)
    console.print(
        f"loss on {len(records.images)} images: {tuned.loss_before:.4f} before, {tuned.loss_after:.4f} after "
        f"{options.steps} steps; written to {options.output}",
        soft_wrap=True,
    )
