"""The account that a reader gives beside the images: its vocabulary, its files, and what it left out or mended."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

from trex2_lightning.data.annotations.limits import unzipped, whole
from trex2_lightning.errors import InputError

GZIP = b"\x1f\x8b"
BROKEN = (OSError, EOFError, zlib.error)  # what reading a file, perhaps gzipped, raises


class Report:
    """What a reader says besides the images.

    Args:
        watch: opens files otherwise, for a progress bar.
        strict: a defect of the file ends the reading, as where figures are computed from all of it. Boxes without area
            in their image and boxes that reach out of it are mended and counted all the same.
    """

    def __init__(self, watch: Callable[[Path], BinaryIO] | None = None, *, strict: bool = False) -> None:
        self.strict = strict
        self.names: list[str] = []  # of a closed vocabulary, in the file's order; known before the first image
        self.category_ids: list[int] = []
        self.groups: list[str] = []
        self.nameless = False  # categories belong to one image each and have no names
        self.counts: Counter[str] = Counter()  # what was left out or mended, by reason
        self.examples: dict[str, str] = {}  # where each reason occurred first
        self.sources: list[Path] = []  # files and folders that were read
        self._watch = watch
        self._images: set[int] = set()  # hashes, as they may be many millions

    def count(self, reason: str, where: str, number: int = 1) -> None:
        """What is left out or mended whoever reads it."""
        self.counts[reason] += number
        # What a file says may hold half of a surrogate pair, which no terminal prints.
        self.examples.setdefault(reason, where.encode(errors="backslashreplace").decode())

    @property
    def lost(self) -> dict[str, tuple[int, str]]:
        """How many and where first, by reason."""
        return {reason: (number, self.examples[reason]) for reason, number in self.counts.items()}

    def defect(self, reason: str, where: str, number: int = 1) -> None:
        """What is wrong with an entry of the file that is read; behind a colon, what is done about it.

        Raises:
            InputError: the report is strict.
        """
        self.count(reason, where, number)
        if self.strict:
            wrong = reason.partition(":")[0]
            raise InputError(f"{self.sources[-1]}: {self.examples[reason]}: {wrong}; correct or remove it")

    def is_new(self, image: str, where: str) -> bool:
        """Whether the image was not given before; one that was is counted."""
        if hash(image) in self._images:
            self.defect("image given twice: the first is used", where)
            return False
        self._images.add(hash(image))
        return True

    def open(self, path: Path) -> BinaryIO:
        """The text of a file as bytes of UTF-8, gunzipped where it is gzipped, and in whatever Unicode it is written.

        Raises:
            InputError: it cannot be opened.
        """
        if self.strict and not path.is_file():
            raise InputError(
                f"{path}: no such annotation file; set data.root= to the data set's folder, or mend the path"
            )
        self.sources.append(path)
        try:
            file = self._watch(path) if self._watch else path.open("rb")
            zipped = path.suffix == ".gz" or _first(file)[:2] == GZIP
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give the annotation file") from error
        plain = unzipped(file, path) if zipped else file
        return in_utf8(plain, _first(plain))

    def read(self, path: Path) -> bytes:
        """All that `open` gives.

        Raises:
            InputError: it cannot be read, or is longer than files are that are read whole.
        """
        with self.open(path) as file:
            try:
                return whole(file, path)
            except BROKEN as error:
                raise InputError(f"{path}: cannot be read ({error}); fetch it again") from error

    def declare(self, names: Iterable[tuple[int, Any, str]], *, as_given: bool = False) -> dict[int, str]:
        """Set the vocabulary from (id, name, group), and return the names by id; equal names become one category.

        Args:
            names: of the file's categories, in its order.
            as_given: names that differ in case or blanks alone are different, and stay as they are.
        """
        known: dict[str, str] = {}
        by_id: dict[int, str] = {}
        for category_id, given, group in names:
            name = given if as_given and clean(given) else clean(given)
            key = name if as_given else name.casefold()  # the text encoder sees no case
            if not name:
                self.defect("category without a name", f"category {category_id}")
            elif category_id in by_id:
                self.defect("category id given twice: the first is used", f"category {category_id}")
            elif key in known:
                self.defect("category name given twice: made one", f"category {category_id}, {name}")
                by_id[category_id] = known[key]
            else:
                by_id[category_id] = known[key] = name
                self.names.append(name)
                self.category_ids.append(category_id)
                self.groups.append(group)
        return by_id


def in_utf8(file: BinaryIO, first: bytes) -> BinaryIO:
    """A file of UTF-16 or UTF-32, as Windows writes them, in UTF-8; any other as it is.

    Args:
        first: its first four bytes.
    """
    encoding = json.detect_encoding(first)
    return file if encoding.startswith("utf-8") else cast(BinaryIO, io.BufferedReader(_InUtf8(file, encoding)))


class _InUtf8(io.RawIOBase):
    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._text = io.TextIOWrapper(file, encoding=encoding, newline="")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._text.read(len(buffer) // 4).encode(errors="replace")  # no character takes over four bytes
        except UnicodeDecodeError as error:
            raise OSError(f"not {error.encoding}: {error.reason}") from error
        buffer[: len(content)] = content
        return len(content)


def _first(file: BinaryIO) -> bytes:
    """The first four bytes of a file, which stands at its start again; none of one that is damaged."""
    try:
        found = file.read(4)
    except (EOFError, zlib.error, gzip.BadGzipFile):  # whoever reads on is told
        found = b""
    file.seek(0)
    return found


def clean(name: Any) -> str:
    """A category's name without spare blanks; "" where it is not text."""
    if not isinstance(name, str):
        return ""
    try:
        return " ".join(name.split()).encode().decode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return ""
