"""JSON of gigabytes, entry by entry: the lists of one object, or one object a line.

The standard library's decoder, on a window of the text. Beside ijson 3.6 (yajl2_c), which reads one list in a pass, it
takes all of a file's lists in one, at 1.4 times the speed for each, and it says of a broken line no more than needed.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from trex2_lightning.data.annotations import limits
from trex2_lightning.data.annotations.limits import lines_of
from trex2_lightning.data.annotations.reading_report import BROKEN, Report
from trex2_lightning.errors import InputError

BLANK = re.compile(r"[ \t\n\r]*")
WINDOW = 2**20  # characters that are read at once

Whole = TypeVar("Whole", dict[str, Any], list[Any])


def json_lists(path: Path, report: Report, expected: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """(key, entry) for every entry of every list in the object that the file holds, in the file's order.

    That a list is missing which is `expected` is a defect.

    Raises:
        InputError: not UTF-8, not JSON, or not an object; whatever came before has been given by then.
    """
    with report.open(path) as file:
        try:
            scanner = _Scanner(file)
            yield from scanner.lists()
        except InputError:
            raise
        except (ValueError, RecursionError, *BROKEN) as error:
            reason = str(error).splitlines()[0] or type(error).__name__
            raise InputError(f"{path}: not JSON with lists ({reason}); give the annotation file, unbroken") from error
    for key in expected:
        if key not in scanner.keys:
            report.defect(f"no list '{key}': taken to be empty", "its object")


def json_whole(path: Path, report: Report, kind: type[Whole]) -> Whole:
    """The whole of a file of moderate size, which holds a `kind`: a dict or a list.

    Raises:
        InputError: it cannot be opened, or is no JSON of that kind.
    """
    text = report.read(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); fetch it again") from error
    if not isinstance(content, kind):
        raise InputError(f"{path}: not a JSON {'object' if kind is dict else 'list'}; fetch it again")
    return content


def json_lines(path: Path, report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) for every line; a broken line is counted.

    Raises:
        InputError: the file cannot be opened, or no line is JSON.
    """
    good = 0
    with report.open(path) as file:
        try:
            for number, line in enumerate(lines_of(file, path), 1):
                where = f"{path.name}, line {number}"
                try:
                    content = json.loads(line.decode("utf-8-sig")) if line.strip() else None
                except UnicodeDecodeError:
                    report.defect("line that is not UTF-8", where)
                except (ValueError, RecursionError):
                    report.defect("line that is not JSON", where)
                else:
                    if isinstance(content, dict):
                        good += 1
                        yield where, content
                    elif line.strip():
                        report.defect("line that is not a JSON object", where)
        except BROKEN as error:
            raise InputError(f"{path}: cannot be read ({error}); fetch it again") from error
    if not good:
        raise InputError(f"{path}: no line is a JSON object; give a file with one for every image")


class _Scanner:
    """A window on a text, which moves on as values are taken from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self.keys: set[str] = set()  # of the lists so far

    def lists(self) -> Iterator[tuple[str, Any]]:
        self._take("{")
        more = self._next() != "}"
        while more:
            key = self._value()
            if not isinstance(key, str):
                raise ValueError("a key that is not text")
            self._take(":")
            if self._next() == "[":
                self.keys.add(key)
                yield from ((key, entry) for entry in self._entries())
            else:
                self._value()
            more = self._next() == ","
            if more:
                self._take(",")
        self._take("}")
        if self._next():
            raise ValueError("text behind the object")

    def _entries(self) -> Iterator[Any]:
        self._take("[")
        more = self._next() != "]"
        while more:
            yield self._value()
            more = self._next() == ","
            if more:
                self._take(",")
        self._take("]")

    def _value(self) -> Any:
        self._next()
        step = WINDOW
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > limits.LONGEST:
                    raise ValueError(f"an entry longer than {limits.LONGEST:,}, LONGEST in {limits.HERE}") from None
                if not self._read(step):
                    raise
            else:
                if end < len(self._text) or not self._read(step):  # else a number may go on
                    self._at = end
                    return value
            step *= 2

    def _take(self, character: str) -> None:
        if self._next() != character:
            raise ValueError(f"no {character!r} where one must be")
        self._at += 1

    def _next(self) -> str:
        """The next character that is not blank, "" at the end of the file."""
        while True:
            blank = BLANK.match(self._text, self._at)
            assert blank
            self._at = blank.end()
            if self._at < len(self._text) or not self._read(WINDOW):
                return self._text[self._at : self._at + 1]

    def _read(self, size: int) -> bool:
        chunk = self._file.read(size)
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)
