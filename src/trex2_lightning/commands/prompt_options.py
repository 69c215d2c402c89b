"""What to look for, as options that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trex2_lightning.errors import InputError
from trex2_lightning.inference.marks import MARK_FORMS, typed_marks
from trex2_lightning.structures import Exemplar

if TYPE_CHECKING:
    from trex2_lightning.inference.refining import Refining

OPTIONS = {  # form and meaning
    "--text": ("PHRASE", "what the phrase names"),
    "--box": (MARK_FORMS["box"], "what looks like the object in this box"),
    "--point": (MARK_FORMS["point"], "what looks like the object at this point"),
    "--reference": (MARK_FORMS["reference"], "what looks like this box, or point X,Y, of another image"),
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


def add_refine_options(parser: argparse.ArgumentParser, where: str) -> None:
    """`--refine`, which `refining` reads, for boxes that are found in `where`."""
    refined = parser.add_argument_group("prompts by what text finds")
    refined.add_argument(
        "--refine",
        action="store_true",
        help=f"mix each --text with the best boxes that it finds in {where}; for checkpoints that take boxes",
    )
    refined.add_argument(
        "--refine-boxes", type=int, default=3, metavar="N", help="how many of them for each phrase (default: 3)"
    )
    refined.add_argument(
        "--refine-score", type=float, metavar="SCORE", help="their lowest score; default: the checkpoint's threshold"
    )


def refining(options: argparse.Namespace) -> Refining | None:
    """Which boxes become exemplars; None: none do.

    Raises:
        InputError: it is not to be one box at least.
    """
    from trex2_lightning.inference.refining import Refining

    if options.refine_boxes < 1:
        raise InputError(f"--refine-boxes {options.refine_boxes}: write a whole number from 1 on")
    return Refining(options.refine_boxes, options.refine_score) if options.refine else None


def marked(options: argparse.Namespace) -> dict[str, dict[str, list[Exemplar]]]:
    """Exemplars by file, "" for the image itself, and category.

    Raises:
        InputError: an option that is not in its form.
    """
    return typed_marks({name: getattr(options, name, ()) for name in MARK_FORMS}, sign="--")
