"""Publish a checkpoint on the Hugging Face hub, or as a folder for it."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from trex2_lightning.commands.terminal import console
from trex2_lightning.errors import InputError


def main(arguments: list[str], prog: str = "push.py") -> None:
    """`push.py MODEL [OWNER/NAME] [--folder DIR] --licence ID [--private]`"""
    parser = argparse.ArgumentParser(
        prog,
        description="Publish a checkpoint with a model card made from its run: docs/publish.md says what is written.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="checkpoint, folder of a run, or a folder of an earlier --folder"
    )
    parser.add_argument(
        "repository", nargs="?", metavar="OWNER/NAME", help="of the hub; it is made where there is none"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="write a folder, and push nothing without OWNER/NAME"
    )
    parser.add_argument(
        "--licence", "--license", metavar="ID", help="of what is published, by its name on the hub, such as apache-2.0"
    )
    parser.add_argument("--private", action="store_true", help="a new repository is for its owner alone")
    options = parser.parse_args(arguments)
    if not options.repository and not options.folder:
        raise InputError("where to: give OWNER/NAME of the hub, or --folder DIR")

    from trex2_lightning.inference.publishing.upload import upload, write_published
    from trex2_lightning.training.checkpoint import checkpoint_of
    from trex2_lightning.training.published import is_published

    source = Path(options.model)
    if is_published(source):
        if options.folder or options.licence:
            raise InputError(
                f"{source} is a folder to publish as it is: give OWNER/NAME alone; its README.md has the licence"
            )
        console.print(f"published: {upload(source, options.repository, private=options.private)}", soft_wrap=True)
        return
    if not options.licence:
        raise InputError(
            "under which licence: give --licence ID, such as apache-2.0 (docs/licences.md says what allows it)"
        )
    checkpoint = checkpoint_of(source)
    if checkpoint is None:
        raise InputError(f"{source} is published already: push takes the checkpoint of a run")
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        name = options.repository or str(folder)
        files = write_published(checkpoint, folder, options.licence, name)
        if options.folder:
            console.print(f"written to {folder}: {', '.join(file.name for file in files)}", soft_wrap=True)
        if options.repository:
            console.print(f"published: {upload(folder, options.repository, private=options.private)}", soft_wrap=True)
