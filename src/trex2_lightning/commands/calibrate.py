"""Fit what scores mean, and what exemplars look like, to a trained checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.evaluate import available_device
from trex2_lightning.commands.terminal import console, parse
from trex2_lightning.errors import InputError
from trex2_lightning.ops.host import writable


def main(arguments: list[str], prog: str = "calibrate.py") -> None:
    """`calibrate.py --model MODEL [--output OUTPUT] [--evidence KIND] model.appearance.name=backbone key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Fit what scores mean, by val; the weights stay as they are.")
    parser.add_argument(
        "--model",
        "--ckpt",
        required=True,
        help="checkpoint, folder of a run, a folder by trex2 push, or a Grounding DINO; or a repository of the hub",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="what to write: a checkpoint, by default calibrated.ckpt beside the other; of a model of the hub a folder "
        "as trex2 push writes them, by default NAME-calibrated here",
    )
    parser.add_argument(
        "--evidence",
        choices=("all", "learned", "appearance"),
        default="all",
        help="where boxes are compared with exemplars: weigh what was learned, or appearance, alone",
    )
    options, overrides = parse(parser, arguments, "settings of data, eval and model.appearance")

    from trex2_lightning.config import for_evaluation
    from trex2_lightning.evaluation.fits import calibrate
    from trex2_lightning.inference.pretrained import load_pretrained
    from trex2_lightning.training.checkpoint import checkpoint_of, compare_appearance, write_fits
    from trex2_lightning.training.published import publish

    checkpoint = checkpoint_of(options.model)
    trained, module = load_pretrained(checkpoint or options.model)
    published = Path(f"{trained.name}-calibrated")
    output = options.output or (checkpoint.with_name("calibrated.ckpt") if checkpoint else published)
    if not checkpoint and output.suffix == ".ckpt":
        raise InputError(f"{output}: a model of the hub is written as a folder: give one by --output")
    if output.is_dir() and output.resolve() == Path(options.model).resolve():
        raise InputError(f"{output} is the model itself: give another folder by --output")
    writable(output.parent)
    config = for_evaluation(trained, [*available_device(), *overrides])
    appearance, config.model.appearance = config.model.appearance, trained.model.appearance
    if config.model != trained.model:
        raise InputError("the model of a checkpoint cannot be changed, but for model.appearance: leave the others out")
    if appearance != trained.model.appearance:
        compare_appearance(config, module, appearance)
    calibrate(config, module, options.evidence)
    if checkpoint:
        write_fits(config, module, checkpoint, output)
    else:
        publish(config, module, output)
    console.print(f"written to {output}", soft_wrap=True)
