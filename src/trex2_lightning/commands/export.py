"""Write a trained detector as ONNX graphs."""

from __future__ import annotations

import argparse
from pathlib import Path

from trex2_lightning.commands.terminal import console, if_stopped
from trex2_lightning.ops.host import writable


def main(arguments: list[str], prog: str = "export.py") -> None:
    """`export.py MODEL FOLDER`"""
    parser = argparse.ArgumentParser(
        prog,
        description="Write a trained detector as ONNX graphs, for ONNX Runtime: docs/export.md says how they are used.",
    )
    parser.add_argument("model", metavar="MODEL", help="checkpoint, folder of a run, or what trex2 push has written")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="to write to; it is made")
    options = parser.parse_args(arguments)

    from trex2_lightning.inference.export import export, require_onnx
    from trex2_lightning.inference.pretrained import load_pretrained

    require_onnx()  # before it loads a detector
    writable(options.folder, "FOLDER")
    with if_stopped(lambda: f"{options.folder} has a part, which is of no use; start it again"):
        files = export(*load_pretrained(options.model), options.folder)
    console.print(f"written to {options.folder}: {', '.join(file.name for file in files)}", soft_wrap=True)
