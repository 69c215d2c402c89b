"""What a file of `data/formats/` declares: how the command, training, evaluation and the documents know the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trex2_lightning.data.annotations.cleaning import Annotated
from trex2_lightning.data.annotations.reading_report import Report
from trex2_lightning.data.images.archives import ImageStore


class Argument(NamedTuple):
    """Something that a reader is given besides the images and the report."""

    name: str  # of the reader's argument; on the command line with hyphens
    help: str
    kind: type[Path] | type[str] | type[int] = Path
    default: Any = None
    choices: tuple[str, ...] = ()
    advised: bool = False  # an option without which much is missing: commands that are told to the user have it


class Format(NamedTuple):
    """A data set's format."""

    name: str  # what users call it, and its file
    help: str  # in a few words
    data_sets: str  # it is the format of
    judges: str  # which categories an image judges
    kinds: tuple[str, ...]  # of `data.sets` that it can be
    # Called with the values of `sources` and `options` by name, with `report`, and with `store` if it `has_images`.
    reader: Callable[..., Iterator[Annotated]]
    sources: tuple[Argument, ...]  # files or folders of annotations
    options: tuple[Argument, ...] = ()
    has_images: bool = True  # wants to be told where the images are; else the annotations say it
    # What the one source's name ends in where training and evaluation may read it without an index, as its reader
    # declares the vocabulary and opens no image; "": they may not.
    direct: str = ""
    indexed: bool = True  # an index holds all that it has to say

    def read(self, arguments: Mapping[str, Any], report: Report) -> Iterator[Annotated]:
        """The images, by the values of sources and options, and by `images`, the places where they are.

        Raises:
            InputError: a file cannot be read, or a place is missing.
        """
        values = {argument.name: arguments[argument.name] for argument in (*self.sources, *self.options)}
        if self.has_images:
            values["store"] = store = ImageStore(arguments["images"])
            report.sources.extend(store.archives)
        return self.reader(**values, report=report)

    def is_direct(self, annotations: Path) -> bool:
        """Whether it is a file, there or not, that is read without an index."""
        return bool(self.direct) and annotations.name.endswith((self.direct, f"{self.direct}.gz"))

    @property
    def usage(self) -> str:
        """What the command takes before the place of the index, as it is told where an index is missing."""
        words = [source.name.upper() for source in self.sources] + ["IMAGES"] * self.has_images
        for option in self.options:
            words += [option_name(option), option.name.upper()] if option.advised else []
        return " ".join(words)


def option_name(option: Argument) -> str:
    """On the command line."""
    return f"--{option.name.replace('_', '-')}"
