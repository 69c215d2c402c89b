"""Published Grounding DINO weights on COCO, beside the AP that their authors publish."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console, parse
from trex2_lightning.errors import InputError

DEFAULT = "IDEA-Research/grounding-dino-tiny"


def main(arguments: list[str], prog: str = "verify_official.py") -> None:
    """`verify_official.py data.root=COCO [--model MODEL ...] [--output DIR] key=value ...`"""
    parser = argparse.ArgumentParser(
        prog,
        description="Evaluate published Grounding DINO weights on COCO val2017 by this package alone, as their authors "
        "do, beside the AP that these publish.",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help=f"repository of the hub, or folder of that name; may be repeated (default: {DEFAULT})",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/official"), help="folder for the files (default: runs/official)"
    )
    options, overrides = parse(parser, arguments)
    if not any(item.startswith("data.root=") for item in overrides):
        raise InputError("add data.root=COCO, the folder with annotations/instances_val2017.json and val2017/")

    from trex2_lightning.commands.evaluate import available_device
    from trex2_lightning.studies.official import verification_table, verify

    models = options.model or [DEFAULT]
    found = [verify(model, [*available_device(), *overrides], options.output / Path(model).name) for model in models]
    console.print(verification_table(found), soft_wrap=True, highlight=False, markup=False)
