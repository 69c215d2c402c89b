"""Fit what scores mean, and what exemplars look like, to a trained checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.evaluate import available_device
from trex2_lightning.commands.terminal import console, parse
from trex2_lightning.errors import InputError
from trex2_lightning.ops.host import writable


def main(arguments: list[str], prog: str = "calibrate.py") -> None:
    """`calibrate.py --ckpt FILE [--output FILE] [model.appearance.name=backbone] key=value ...`"""
    parser = argparse.ArgumentParser(prog, description="Fit what scores mean, by val; the weights stay as they are.")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a run")
    parser.add_argument("--output", type=Path, help="checkpoint to write; default: calibrated.ckpt beside the other")
    options, overrides = parse(parser, arguments, "settings of data, eval and model.appearance")

    from trex2_lightning.config import for_evaluation
    from trex2_lightning.evaluation.fits import calibrate
    from trex2_lightning.training.checkpoint import compare_appearance, load_checkpoint, write_fits

    output = options.output or options.ckpt.with_name("calibrated.ckpt")
    trained, module = load_checkpoint(options.ckpt)
    writable(output.parent)
    config = for_evaluation(trained, [*available_device(), *overrides])
    appearance, config.model.appearance = config.model.appearance, trained.model.appearance
    if config.model != trained.model:
        raise InputError("the model of a checkpoint cannot be changed, but for model.appearance: leave the others out")
    if appearance != trained.model.appearance:
        compare_appearance(config, module, appearance)
    calibrate(config, module)
    write_fits(config, module, options.ckpt, output)
    console.print(f"written to {output}", soft_wrap=True)
