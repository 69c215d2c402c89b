"""Write a trained detector as ONNX graphs."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console


def main(arguments: list[str], prog: str = "export.py") -> None:
    """`export.py MODEL FOLDER`"""
    parser = argparse.ArgumentParser(
        prog,
        description="Write a trained detector as ONNX graphs, for ONNX Runtime: docs/export.md says how they are used.",
    )
    parser.add_argument("model", metavar="MODEL", help="checkpoint, folder of a run, or Grounding DINO of the hub")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="to write to; it is made")
    options = parser.parse_args(arguments)

    from trex2_lightning.inference.export import export
    from trex2_lightning.inference.pretrained import load_pretrained

    files = export(*load_pretrained(options.model), options.folder)
    console.print(f"written to {options.folder}: {', '.join(file.name for file in files)}", soft_wrap=True)
