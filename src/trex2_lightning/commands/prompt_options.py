"""What to look for, as options that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields

from trex2_lightning.errors import InputError
from trex2_lightning.structures import Box, Exemplar, Point

OPTION_FORMS = {"--box": "NAME=X1,Y1,X2,Y2", "--point": "NAME=X,Y", "--reference": "NAME=FILE:X1,Y1,X2,Y2"}
OPTIONS = {  # form and meaning
    "--text": ("PHRASE", "what the phrase names"),
    "--box": (OPTION_FORMS["--box"], "what looks like the object in this box"),
    "--point": (OPTION_FORMS["--point"], "what looks like the object at this point"),
    "--reference": (OPTION_FORMS["--reference"], "what looks like this box, or point X,Y, of another image"),
    "--prompts": ("FILE", "what the categories of a prompt file stand for"),
    "--negative": ("NAME", "one of the categories above, whose objects are not wanted"),
}


def add_prompt_options(parser: argparse.ArgumentParser, names: Sequence[str] = tuple(OPTIONS)) -> None:
    """The options of these names, each of which may be repeated, and `--mix`."""
    wanted = parser.add_argument_group("what to look for")
    for option in names:
        form, meaning = OPTIONS[option]
        wanted.add_argument(option, action="append", default=[], metavar=form, help=meaning)
    wanted.add_argument(
        "--mix",
        choices=["half", "mean"],
        default="half",
        help="weight of a phrase beside n images of one NAME: 1/2 (default) or 1/(n+1)",
    )


def marked(options: argparse.Namespace) -> dict[str, dict[str, list[Exemplar]]]:
    """Exemplars by file, "" for the image itself, and category.

    Raises:
        InputError: an option that is not in its form.
    """
    found: dict[str, dict[str, list[Exemplar]]] = {}
    for option, kinds in (("--box", (Box,)), ("--point", (Point,)), ("--reference", (Box, Point))):
        for text in getattr(options, option.removeprefix("--"), ()):
            name, _, place = text.partition("=")
            file, _, numbers = place.rpartition(":")
            try:
                values = [float(number) for number in numbers.split(",")]
            except ValueError:
                values = []
            kind = next((kind for kind in kinds if len(fields(kind)) == len(values)), None)
            if not name.strip() or kind is None or bool(file) != (option == "--reference"):
                raise InputError(f"{option} {text}: write {option} {OPTION_FORMS[option]}, in pixels")
            found.setdefault(file, {}).setdefault(name.strip(), []).append(kind(*values))
    return found
